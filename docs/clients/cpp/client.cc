// Makes one call to a PARS sidecar and prints the reply as JSON.
//
//     client ADDRESS DEADLINE_MS score PROMPT...
//     client ADDRESS DEADLINE_MS compare PROMPT_A PROMPT_B
//     client ADDRESS DEADLINE_MS health
//
// A call that fails prints its gRPC status on stderr and exits with 64 plus the status code. Ctrl-C cancels the call.

#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "pars/v1/ranker.grpc.pb.h"

namespace {

constexpr char kUsage[] = "usage: client ADDRESS DEADLINE_MS score PROMPT... | compare PROMPT_A PROMPT_B | health\n";

std::string ToJson(const google::protobuf::Message& reply) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
#if GOOGLE_PROTOBUF_VERSION >= 5026000
  options.always_print_fields_with_no_presence = true;
#else
  options.always_print_primitive_fields = true;
#endif
  std::string json;
  return google::protobuf::util::MessageToJsonString(reply, &json, options).ok() ? json : "{}";
}

// Makes the call that `command` names; false when there is no such call.
bool Call(const std::shared_ptr<grpc::Channel>& channel, grpc::ClientContext* context, const std::string& command,
          const std::vector<std::string>& texts, grpc::Status* status, std::string* json) {
  const auto ranker = pars::v1::RankerService::NewStub(channel);
  if (command == "score") {
    pars::v1::ScoreRequest request;
    request.mutable_prompts()->Assign(texts.begin(), texts.end());
    pars::v1::ScoreResponse reply;
    *status = ranker->Score(context, request, &reply);
    *json = ToJson(reply);
  } else if (command == "compare" && texts.size() == 2) {
    pars::v1::CompareRequest request;
    auto* pair = request.add_pairs();
    pair->set_prompt_a(texts[0]);
    pair->set_prompt_b(texts[1]);
    pars::v1::CompareResponse reply;
    *status = ranker->Compare(context, request, &reply);
    *json = ToJson(reply);
  } else if (command == "health" && texts.empty()) {
    grpc::health::v1::HealthCheckResponse reply;
    *status = grpc::health::v1::Health::NewStub(channel)->Check(context, {}, &reply);
    *json = ToJson(reply);
  } else {
    return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  char* deadline_end = nullptr;
  const long deadline_ms = argc < 4 ? 0 : std::strtol(argv[2], &deadline_end, 10);
  if (deadline_ms <= 0 || *deadline_end != '\0') {
    std::cerr << kUsage;
    return 2;
  }

  // Both the deadline and Ctrl-C travel to the server, which drops the work. A signal handler may not call gRPC, a thread may; every
  // thread inherits the mask, so the signal finds nobody but the one that waits for it.
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(deadline_ms));
  sigset_t interrupt;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupt, nullptr);
  std::thread canceller([&context, &interrupt] {
    int signal_number = 0;
    sigwait(&interrupt, &signal_number);
    context.TryCancel();
  });

  // A program keeps its channel, and with it the connection, for life.
  const auto channel = grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials());
  grpc::Status status;
  std::string json;
  const bool known = Call(channel, &context, argv[3], {argv + 4, argv + argc}, &status, &json);
  pthread_kill(canceller.native_handle(), SIGINT);  // Cancelling a call that is over does nothing.
  canceller.join();
  if (!known) {
    std::cerr << kUsage;
    return 2;
  }
  if (!status.ok()) {
    std::cerr << "status " << status.error_code() << ": " << status.error_message() << "\n";
    return 64 + status.error_code();
  }
  std::cout << json;
  return 0;
}
