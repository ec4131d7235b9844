"""A data plane for tests: speaks ext_proc to pdroute-extproc as Envoy does, but says exactly what a test wants said.

Its messages are made and read by Google's protobuf runtime from the descriptions below (names and numbers of
envoy/service/ext_proc/v3/external_processor.proto and its imports, as far as they are needed): a second opinion on pdroute-extproc's own reader and writer.
"""

import socket
import struct
import time

import h2.config
import h2.connection
import h2.events
import h2.settings
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

F = descriptor_pb2.FieldDescriptorProto
TYPES = {"bool": F.TYPE_BOOL, "bytes": F.TYPE_BYTES, "string": F.TYPE_STRING, "int": F.TYPE_INT32}
MESSAGES = """
HeaderValue: key=1 string, value=2 string, raw_value=3 bytes
HeaderMap: headers=1 *HeaderValue
HeaderValueOption: header=1 HeaderValue, append_action=3 int
Metadata: filter_metadata=1 map
HttpHeaders: headers=1 HeaderMap, end_of_stream=3 bool
HttpBody: body=1 bytes, end_of_stream=2 bool
HttpTrailers: trailers=1 HeaderMap
ProtocolConfiguration: request_body_mode=1 int, response_body_mode=2 int
ProcessingRequest: request_headers=2 HttpHeaders, response_headers=3 HttpHeaders, request_body=4 HttpBody, response_body=5 HttpBody, request_trailers=6 HttpTrailers, response_trailers=7 HttpTrailers, metadata_context=8 Metadata, attributes=9 map, protocol_config=11 ProtocolConfiguration
HeaderMutation: set_headers=1 *HeaderValueOption, remove_headers=2 *string
StreamedBodyResponse: body=1 bytes, end_of_stream=2 bool
BodyMutation: streamed_response=3 StreamedBodyResponse
CommonResponse: header_mutation=2 HeaderMutation, body_mutation=3 BodyMutation, clear_route_cache=5 bool
HeadersResponse: response=1 CommonResponse
BodyResponse: response=1 CommonResponse
TrailersResponse: header_mutation=1 HeaderMutation
HttpStatus: code=1 int
ImmediateResponse: status=1 HttpStatus, headers=2 HeaderMutation, body=3 bytes, details=5 string
StreamedImmediateResponse: headers_response=1 HttpHeaders, body_response=2 StreamedBodyResponse
ProcessingResponse: request_headers=1 HeadersResponse, response_headers=2 HeadersResponse, request_body=3 BodyResponse, response_body=4 BodyResponse, request_trailers=5 TrailersResponse, response_trailers=6 TrailersResponse, immediate_response=7 ImmediateResponse, dynamic_metadata=8 Struct, streamed_immediate_response=11 StreamedImmediateResponse
HealthCheckRequest: service=1 string
HealthCheckResponse: status=1 int
"""


def classes():
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="t", syntax="proto3", dependency=["google/protobuf/struct.proto"])
    for line in MESSAGES.strip().splitlines():
        name, _, fields = line.partition(": ")
        message = file.message_type.add(name=name)
        for each in fields.split(", "):
            label, kind = each.split()
            field_name, number = label.split("=")
            field = message.field.add(name=field_name, number=int(number), label=F.LABEL_REPEATED if kind[0] == "*" or kind == "map" else F.LABEL_OPTIONAL)
            kind = kind.lstrip("*")
            if kind == "map":  # map<string, Struct>
                entry = message.nested_type.add(name="".join(p.capitalize() for p in field_name.split("_")) + "Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
                entry.field.add(name="value", number=2, type=F.TYPE_MESSAGE, type_name=".google.protobuf.Struct", label=F.LABEL_OPTIONAL)
                field.type, field.type_name = F.TYPE_MESSAGE, f".t.{name}.{entry.name}"
            elif kind in TYPES:
                field.type = TYPES[kind]
            else:
                field.type, field.type_name = F.TYPE_MESSAGE, ".google.protobuf.Struct" if kind == "Struct" else f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {name: message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName(f"t.{name}"))
            for name in (line.partition(":")[0] for line in MESSAGES.strip().splitlines())}


M = classes()
PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
CHECK = "/grpc.health.v1.Health/Check"
NONE, STREAMED, FULL = 0, 1, 4


def frame(message):
    data = message.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


class Call:
    """One gRPC call on a connection of its own. Context manager."""

    def __init__(self, port, path=PROCESS, answer=M["ProcessingResponse"]):
        self.answer, self.messages, self.trailers, self.buffer, self.reset, self.ended = answer, [], {}, b"", None, False
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
        self.h2.increment_flow_control_window(1 << 26)
        self.id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(self.id, [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")])
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def send_bytes(self, data, end=False):
        while data or end:
            room = min(self.h2.local_flow_control_window(self.id), self.h2.max_outbound_frame_size)
            if room == 0:
                self.pump(1)
                continue
            self.h2.send_data(self.id, data[:room], end_stream=end and len(data) <= room)
            if len(data) <= room:
                end = False
            data = data[room:]
            self.flush()

    def send(self, end=False, **fields):
        self.send_bytes(frame(M["ProcessingRequest"](**fields)), end)

    def headers(self, path="/v1/chat/completions", method="POST", end=False, body_mode=FULL, metadata=None, **more):
        listed = {":method": method, ":path": path, ":authority": "client.example", ":scheme": "http", "content-type": "application/json", **more}
        message = {"request_headers": {"headers": {"headers": [{"key": k.replace("_", "-"), "raw_value": v.encode()} for k, v in listed.items()]}, "end_of_stream": end},
                   "protocol_config": {"request_body_mode": FULL, "response_body_mode": body_mode}}
        request = M["ProcessingRequest"](**message)
        for space, key, value in metadata or ():
            request.metadata_context.filter_metadata[space].update({key: value})
        self.send_bytes(frame(request))

    def body(self, data, end=False):
        self.send(request_body={"body": data, "end_of_stream": end})

    def response(self, status, end=False, served=None, details=None, **headers):
        listed = {":status": str(status), "x-envoy-upstream-service-time": "1", **{k.replace("_", "-"): v for k, v in headers.items()}}
        request = M["ProcessingRequest"](response_headers={"headers": {"headers": [{"key": k, "raw_value": v.encode()} for k, v in listed.items()]}, "end_of_stream": end})
        if details:
            request.attributes["envoy.filters.http.ext_proc"].update({"response.code_details": details})
        if served:
            request.metadata_context.filter_metadata["envoy.lb"].update({"x-gateway-destination-endpoint-served": served})
        self.send_bytes(frame(request))

    def pump(self, seconds):
        """Reads for at most that long, or until something came; 0 if nothing did."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(1 << 20)
        except TimeoutError:
            return 0
        if not data:
            self.ended = True
            return 0
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.buffer += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.TrailersReceived, h2.events.ResponseReceived)):
                self.trailers.update(dict(event.headers))
            elif isinstance(event, h2.events.StreamReset):
                self.reset = event.error_code
            elif isinstance(event, h2.events.StreamEnded):
                self.ended = True
        self.flush()
        while len(self.buffer) >= 5 and len(self.buffer) >= 5 + struct.unpack(">I", self.buffer[1:5])[0]:
            n = struct.unpack(">I", self.buffer[1:5])[0]
            self.messages.append(self.answer.FromString(self.buffer[5:5 + n]))
            self.buffer = self.buffer[5 + n:]
        return len(data)

    def until(self, wanted, seconds=10):
        """Reads until wanted(self) is true; its value."""
        end = time.monotonic() + seconds
        while not (found := wanted(self)):
            assert time.monotonic() < end and not self.ended, f"waited in vain; got {[str(m)[:300] for m in self.messages]}, {self.trailers}, reset {self.reset}"
            self.pump(0.2)
        return found

    def kinds(self):
        return [next(f.name for f, _ in m.ListFields() if f.name != "dynamic_metadata") for m in self.messages]

    def request(self):
        """(headers to set, headers to remove, body, pieces, ended) of what goes upstream, once the body or the trailers end."""
        self.until(lambda c: any(m.HasField("request_trailers") or m.HasField("immediate_response") or m.request_body.response.body_mutation.streamed_response.end_of_stream
                                 for m in c.messages))
        mutation = self.messages[0].request_headers.response.header_mutation
        pieces = [m.request_body.response.body_mutation.streamed_response for m in self.messages if m.HasField("request_body")]
        return ({h.header.key: h.header.raw_value.decode() for h in mutation.set_headers}, list(mutation.remove_headers), b"".join(p.body for p in pieces),
                [len(p.body) for p in pieces], bool(pieces and pieces[-1].end_of_stream))

    def immediate(self):
        return self.until(lambda c: next((m.immediate_response for m in c.messages if m.HasField("immediate_response")), None))

    def cancel(self):
        self.h2.reset_stream(self.id, 8)
        self.flush()

    def half_close(self):
        self.h2.end_stream(self.id)
        self.flush()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def check(port, service=""):
    """(status, grpc-status) of the health service."""
    with Call(port, CHECK, M["HealthCheckResponse"]) as call:
        call.send_bytes(frame(M["HealthCheckRequest"](service=service)), end=True)
        call.until(lambda c: "grpc-status" in c.trailers)
        return (call.messages[0].status if call.messages else None), int(call.trailers["grpc-status"])
