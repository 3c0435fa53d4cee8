"""gRPC over HTTP/2, spoken by ourselves: no RPC crosses the C core, so each costs half as much.

    server      sockets and the one thread that polls them; start, drain, stop, time
    connection  one connection: frames in and out, flow control, settings, its end
    rpc         gRPC on a stream: messages, deadlines, statuses; runs the handlers
    held        bytes of requests and answers in memory, of all connections
    headers     header blocks (HPACK by the `hpack` library), what gRPC reads in them and writes
    frames      the bytes of frames

Specifications: RFC 9113 (HTTP/2), RFC 7541 (HPACK), and "gRPC over HTTP2" of the gRPC project.

Copies of a payload: the socket's bytes into the bytes of the message (1), the message into the
field of the parsed protobuf (2), the field into the bytes that numpy looks at (3); on the way back
a large array goes to the socket from where onnxruntime wrote it (0), a small one into the bytes of
its answer (1).
"""
