"""One session, one shape, fixed buffers on the device: what IO binding saves, and what a CUDA graph needs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks.gpu.sessions import Device, Inputs


class Bound:
    """Inputs and output stay where they are, run after run.

    inputs: the first ones, which give the shape. run_config: of each run, such as the number under which a CUDA graph is kept. Not
    for several threads.
    """

    def __init__(
        self, session: Any, device: Device, inputs: Inputs, output_name: str, run_config: Mapping[str, str] | None = None
    ) -> None:
        self._session = session
        self._options = onnxruntime.RunOptions()
        for key, value in (run_config or {}).items():
            self._options.add_run_config_entry(key, value)
        self._binding = session.io_binding()
        # Not ortvalue_from_numpy: on a CPU that would be the caller's own array, which `put` would then write to.
        self._inputs = {name: _buffer(array.shape, array.dtype.type, device) for name, array in inputs.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        (output,) = (node for node in session.get_outputs() if node.name == output_name)
        batch = next(iter(inputs.values())).shape[0]
        self._output = _buffer((batch, 1) if len(output.shape) == 2 else (batch,), _DTYPES[output.type], device)
        self._binding.bind_ortvalue_output(output_name, self._output)
        self.put(inputs)

    def put(self, inputs: Inputs) -> None:
        """Copy to the device. The shapes are those of the first inputs."""
        for name, value in self._inputs.items():
            value.update_inplace(inputs[name])

    def run(self) -> None:
        """Run and wait for the device; nothing is copied."""
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()

    def scores(self) -> npt.NDArray[np.float32]:
        """Copy from the device. Returns float32[batch]."""
        scores: npt.NDArray[np.float32] = self._output.numpy().astype(np.float32).reshape(-1)
        return scores

    def score(self, inputs: Inputs) -> npt.NDArray[np.float32]:
        """All three: what takes the place of a plain run."""
        self.put(inputs)
        self.run()
        return self.scores()


_DTYPES: Mapping[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def _buffer(shape: tuple[int, ...], dtype: Any, device: Device) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, 0)
