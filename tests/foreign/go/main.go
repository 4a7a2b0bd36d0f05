// A client of dkv made of proto/dkv.proto alone: stores, reads and deletes a value through the node
// whose address it is given, by single calls and in a session.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"dkv.example/foreign/dkvpb"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func expect(holds bool, what string, got any) {
	if !holds {
		log.Fatalf("%s: got %v", what, got)
	}
	fmt.Println("ok", what)
}

func singleCalls(ctx context.Context, kv dkvpb.KVClient) {
	put, err := kv.Put(ctx, &dkvpb.PutRequest{Key: []byte("go"), Value: []byte("gopher")})
	must(err)
	expect(len(put.Replicas) == 3, "put", put.Replicas)
	got, err := kv.Get(ctx, &dkvpb.GetRequest{Key: []byte("go"), Level: dkvpb.Level_LEVEL_ALL})
	must(err)
	expect(string(got.Value) == "gopher" && proto.Equal(got.Version, put.Version), "get", got)
	deleted, err := kv.Delete(ctx, &dkvpb.DeleteRequest{Key: []byte("go")})
	must(err)
	expect(deleted.Version.Hlc > put.Version.Hlc, "delete", deleted)
	_, err = kv.Get(ctx, &dkvpb.GetRequest{Key: []byte("go")})
	expect(status.Code(err) == codes.NotFound, "not found", err)
}

func errorsSayWhy(ctx context.Context, kv dkvpb.KVClient) {
	var trailer metadata.MD
	_, err := kv.Put(ctx, &dkvpb.PutRequest{Value: []byte("no key")}, grpc.Trailer(&trailer))
	expect(status.Code(err) == codes.InvalidArgument, "empty key", err)
	values := trailer.Get("dkv-error-bin")
	expect(len(values) == 1, "trailer", trailer)
	var why dkvpb.Error
	must(proto.Unmarshal([]byte(values[0]), &why))
	expect(why.Outcome == dkvpb.Outcome_OUTCOME_NOT_APPLIED, "outcome", &why)
	expect(why.Message == status.Convert(err).Message(), "sentence", &why)
}

func session(ctx context.Context, kv dkvpb.KVClient) {
	const count = 100
	stream, err := kv.Session(ctx)
	must(err)
	var batch dkvpb.RequestBatch
	for id := range uint64(count) {
		put := &dkvpb.PutRequest{Key: fmt.Appendf(nil, "go%d", id), Value: []byte("value")}
		batch.Requests = append(batch.Requests,
			&dkvpb.Request{Id: id, Body: &dkvpb.Request_Put{Put: put}})
	}
	must(stream.Send(&batch))
	must(stream.CloseSend())
	answered := map[uint64]bool{}
	for {
		replies, err := stream.Recv()
		if err == io.EOF {
			break
		}
		must(err)
		for _, reply := range replies.Replies {
			answered[reply.Id] = reply.GetPut() != nil
		}
	}
	expect(len(answered) == count && answered[0] && answered[count-1], "session", answered)
}

func main() {
	connection, err := grpc.NewClient(os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	kv := dkvpb.NewKVClient(connection)
	singleCalls(ctx, kv)
	errorsSayWhy(ctx, kv)
	session(ctx, kv)
	health, err := grpc_health_v1.NewHealthClient(connection).Check(ctx,
		&grpc_health_v1.HealthCheckRequest{Service: "dkv.v1.KV"})
	must(err)
	expect(health.Status == grpc_health_v1.HealthCheckResponse_SERVING, "health", health)
	must(connection.Close())
}
