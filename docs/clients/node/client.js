// Makes one call to a PARS sidecar and prints the reply as JSON.
//
//     node client.js ADDRESS DEADLINE_MS score PROMPT...
//     node client.js ADDRESS DEADLINE_MS compare PROMPT_A PROMPT_B
//     node client.js ADDRESS DEADLINE_MS health
//
// A call that fails prints its gRPC status on stderr and exits with 64 plus the status code. Ctrl-C cancels the call.
'use strict';

const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

// The stubs are made from the .proto files when the program starts. Names stay as in the files; numbers of 64 bits come as text.
const protos = grpc.loadPackageDefinition(
  protoLoader.loadSync(['pars/v1/ranker.proto', 'grpc/health/v1/health.proto'], {
    includeDirs: [path.join(__dirname, '../../../proto'), path.join(__dirname, '../third_party')],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
  }),
);

const CALLS = {
  score: { service: protos.pars.v1.RankerService, method: 'Score', request: (prompts) => ({ prompts }) },
  compare: {
    service: protos.pars.v1.RankerService,
    method: 'Compare',
    request: ([prompt_a, prompt_b]) => ({ pairs: [{ prompt_a, prompt_b }] }),
    textCount: 2,
  },
  health: { service: protos.grpc.health.v1.Health, method: 'Check', request: () => ({}), textCount: 0 },
};

function main([address, deadlineText, command, ...texts]) {
  const deadlineMs = Number(deadlineText);
  const call = Object.hasOwn(CALLS, command) ? CALLS[command] : undefined;
  if (!call || !(deadlineMs > 0) || (call.textCount ?? texts.length) !== texts.length) {
    console.error('usage: client.js ADDRESS DEADLINE_MS score PROMPT... | compare PROMPT_A PROMPT_B | health');
    process.exitCode = 2;
    return;
  }
  // A program keeps its client, and with it the connection, for life.
  const client = new call.service(address, grpc.credentials.createInsecure());
  // Both the deadline and Ctrl-C travel to the server, which drops the work.
  const cancel = () => pending.cancel();
  process.once('SIGINT', cancel);
  const pending = client[call.method](call.request(texts), { deadline: Date.now() + deadlineMs }, (error, reply) => {
    client.close();
    process.removeListener('SIGINT', cancel);
    if (error) {
      console.error(`status ${error.code}: ${error.details}`);
      process.exitCode = 64 + error.code;
    } else {
      console.log(JSON.stringify(reply, null, 2));
    }
  });
}

main(process.argv.slice(2));
