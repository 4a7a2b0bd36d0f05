/* grpc.reflection.v1 and v1alpha, see proto/grpc/reflection. Their messages are the same but for
 * the name of the package, so one codec serves both. */
#include <grpc/status.h>
#include <stddef.h>

#include "base/err.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "host/descriptors.h"
#include "host/internal.h"
#include "wire/frame.h"

#define UNSENT_MAX 4194304u /* bytes that may wait for a client that does not read them */

typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;

/* A response with all that it points at. */
typedef struct response_parts {
    reflection_response response;
    Grpc__Reflection__V1__FileDescriptorResponse files;
    ProtobufCBinaryData file_bytes[DKV_DESCRIPTORS_MAX];
    Grpc__Reflection__V1__ListServiceResponse list;
    Grpc__Reflection__V1__ServiceResponse services[DKV_SERVICES_MAX];
    Grpc__Reflection__V1__ServiceResponse *service_list[DKV_SERVICES_MAX];
    dkv_service_name names[DKV_SERVICES_MAX];
    Grpc__Reflection__V1__ExtensionNumberResponse extensions;
    Grpc__Reflection__V1__ErrorResponse error;
} response_parts;

#define REQUEST(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define RESPONSE(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

/* ---- the kinds of answers ---- */

static void fill_error(response_parts *parts, int status, char *message) {
    grpc__reflection__v1__error_response__init(&parts->error);
    parts->error.error_code = status;
    parts->error.error_message = message;
    parts->response.message_response_case = RESPONSE(ERROR_RESPONSE);
    parts->response.error_response = &parts->error;
}

static void fill_files(response_parts *parts, const dkv_descriptors *found, char *if_none) {
    if (!found->n) {
        fill_error(parts, GRPC_STATUS_NOT_FOUND, if_none);
        return;
    }
    grpc__reflection__v1__file_descriptor_response__init(&parts->files);
    for (size_t i = 0; i < found->n; i++) {
        parts->file_bytes[i].data = (uint8_t *)found->files[i].data; /* only read */
        parts->file_bytes[i].len = found->files[i].len;
    }
    parts->files.n_file_descriptor_proto = found->n;
    parts->files.file_descriptor_proto = parts->file_bytes;
    parts->response.message_response_case = RESPONSE(FILE_DESCRIPTOR_RESPONSE);
    parts->response.file_descriptor_response = &parts->files;
}

static void fill_services(response_parts *parts) {
    grpc__reflection__v1__list_service_response__init(&parts->list);
    parts->list.n_service = dkv_descriptors_services(parts->names);
    parts->list.service = parts->service_list;
    for (size_t i = 0; i < parts->list.n_service; i++) {
        grpc__reflection__v1__service_response__init(&parts->services[i]);
        parts->services[i].name = parts->names[i].text;
        parts->service_list[i] = &parts->services[i];
    }
    parts->response.message_response_case = RESPONSE(LIST_SERVICES_RESPONSE);
    parts->response.list_services_response = &parts->list;
}

/* No message of dkv has extensions. */
static void fill_extensions(response_parts *parts, char *type) {
    dkv_descriptors found;
    dkv_descriptors_by_symbol(dkv_slice_of(type), &found);
    if (!found.n) {
        fill_error(parts, GRPC_STATUS_NOT_FOUND, "unknown type");
        return;
    }
    grpc__reflection__v1__extension_number_response__init(&parts->extensions);
    parts->extensions.base_type_name = type;
    parts->response.message_response_case = RESPONSE(ALL_EXTENSION_NUMBERS_RESPONSE);
    parts->response.all_extension_numbers_response = &parts->extensions;
}

static void fill_response(reflection_request *request, response_parts *parts) {
    grpc__reflection__v1__server_reflection_response__init(&parts->response);
    parts->response.valid_host = request->host;
    parts->response.original_request = request;
    dkv_descriptors found;
    switch (request->message_request_case) {
    case REQUEST(FILE_BY_FILENAME):
        dkv_descriptors_by_name(dkv_slice_of(request->file_by_filename), &found);
        fill_files(parts, &found, "unknown file");
        break;
    case REQUEST(FILE_CONTAINING_SYMBOL):
        dkv_descriptors_by_symbol(dkv_slice_of(request->file_containing_symbol), &found);
        fill_files(parts, &found, "unknown symbol");
        break;
    case REQUEST(FILE_CONTAINING_EXTENSION):
        fill_error(parts, GRPC_STATUS_NOT_FOUND, "unknown extension");
        break;
    case REQUEST(ALL_EXTENSION_NUMBERS_OF_TYPE):
        fill_extensions(parts, request->all_extension_numbers_of_type);
        break;
    case REQUEST(LIST_SERVICES): fill_services(parts); break;
    default: fill_error(parts, GRPC_STATUS_UNIMPLEMENTED, "a request of an unknown kind");
    }
}

/* ---- the stream ---- */

static int answer(dkv_host *host, dkv_rpc_stream *stream, reflection_request *request) {
    if (dkv_rpc_stream_backlog(stream) > UNSENT_MAX) return DKV_ERR_BUSY;
    response_parts parts;
    fill_response(request, &parts);
    host->scratch.len = 0;
    int err = dkv_wire_append(&host->scratch, &parts.response.base);
    if (!err) err = dkv_rpc_stream_send(stream, dkv_buf_slice(&host->scratch));
    if (!err) dkv_rpc_stream_flush(stream);
    return err;
}

static void on_message(void *user, dkv_rpc_stream *stream, dkv_slice bytes) {
    _Alignas(max_align_t) uint8_t chunk[512];
    dkv_wire_arena arena;
    dkv_wire_arena_init(&arena, chunk, sizeof chunk, DKV_WIRE_ITEM_MEMORY);
    ProtobufCMessage *message;
    int err = dkv_wire_unpack(&arena, &grpc__reflection__v1__server_reflection_request__descriptor,
                              bytes, &message);
    if (!err) err = answer(user, stream, (reflection_request *)message);
    if (err) dkv_rpc_stream_fail(stream, err, dkv_err_sentence(err));
    dkv_wire_arena_reset(&arena);
}

static void on_closed(void *user, dkv_rpc_stream *stream, int err, const char *detail) {
    (void)user;
    (void)stream;
    (void)err;
    (void)detail;
}

void *dkv_reflection_accept(void *user, dkv_rpc_stream *stream) {
    (void)stream;
    return user;
}

const dkv_rpc_stream_events dkv_reflection_events = {
    .message = on_message,
    .closed = on_closed,
    .items_apart = true,
};
