import grpc
import pytest

import vllm_client
from vllm_client import errors

EXPECTED = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidPromptsError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.UNAUTHENTICATED: errors.CredentialsError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.CANCELLED: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
}


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: code.name
)
def test_every_status_code_has_one_error(code):
    expected = EXPECTED.get(code, errors.ServerFaultError)
    assert type(errors.error_from_status(code, "why")) is expected
    assert type(errors.error_from_number(code.value[0], "why")) is expected
    assert str(errors.error_from_status(code, "why")) == f"{code.name}: why"
    assert str(errors.error_from_status(code, None)) == code.name


def test_one_tree():
    public = [getattr(vllm_client, name) for name in vllm_client.__all__ if name.endswith("Error")]
    assert len(public) == 8
    assert all(issubclass(error, vllm_client.RankerClientError) for error in public)
    assert not issubclass(vllm_client.RankerClientError, grpc.RpcError)
