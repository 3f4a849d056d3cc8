// The command client makes one call to a PARS sidecar and prints the reply as JSON.
//
//	client ADDRESS DEADLINE_MS score PROMPT...
//	client ADDRESS DEADLINE_MS compare PROMPT_A PROMPT_B
//	client ADDRESS DEADLINE_MS health
//
// A call that fails prints its gRPC status on stderr and exits with 64 plus the status code. Ctrl-C cancels the call.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	parsv1 "pars-client/pars/v1"
)

const usage = "usage: client ADDRESS DEADLINE_MS score PROMPT... | compare PROMPT_A PROMPT_B | health"

func main() {
	if len(os.Args) < 4 {
		fail(2, usage)
	}
	address, command, texts := os.Args[1], os.Args[3], os.Args[4:]
	deadlineMs, err := strconv.ParseUint(os.Args[2], 10, 31)
	if err != nil || deadlineMs == 0 {
		fail(2, usage)
	}

	// A program keeps its connection for life. WithInsecure and Dial are what every grpc-go 1.x has; since 1.63 NewClient and
	// insecure.NewCredentials say the same.
	connection, err := grpc.Dial(address, grpc.WithInsecure())
	if err != nil {
		fail(2, err.Error())
	}
	defer connection.Close()

	// Both the deadline and Ctrl-C travel to the server, which drops the work.
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(interrupted, time.Duration(deadlineMs)*time.Millisecond)
	defer cancel()

	reply, err := call(ctx, connection, command, texts)
	if err != nil {
		failed := status.Convert(err)
		fail(64+int(failed.Code()), fmt.Sprintf("status %d: %s", failed.Code(), failed.Message()))
	}
	fmt.Println(reply)
}

// call makes the call that command names and returns its reply as JSON.
func call(ctx context.Context, connection *grpc.ClientConn, command string, texts []string) (string, error) {
	ranker := parsv1.NewRankerServiceClient(connection)
	switch {
	case command == "score":
		reply, err := ranker.Score(ctx, &parsv1.ScoreRequest{Prompts: texts})
		return toJSON(reply), err
	case command == "compare" && len(texts) == 2:
		pair := &parsv1.PromptPair{PromptA: texts[0], PromptB: texts[1]}
		reply, err := ranker.Compare(ctx, &parsv1.CompareRequest{Pairs: []*parsv1.PromptPair{pair}})
		return toJSON(reply), err
	case command == "health" && len(texts) == 0:
		reply, err := healthv1.NewHealthClient(connection).Check(ctx, &healthv1.HealthCheckRequest{})
		return fmt.Sprintf("{%q: %q}", "status", reply.GetStatus()), err
	}
	fail(2, usage)
	return "", nil
}

func toJSON(reply proto.Message) string {
	return protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Format(reply)
}

func fail(exitCode int, message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(exitCode)
}
