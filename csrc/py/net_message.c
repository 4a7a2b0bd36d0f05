/* Protobuf messages as dicts, by their descriptors. Enumerations become their names in small
 * letters without the enumeration's prefix: REACH_UP is "up". */
#include <ctype.h>
#include <string.h>

#include "base/err.h"
#include "py/net_module.h"

static PyObject *message_new(const ProtobufCMessage *message);

static PyObject *enum_new(const ProtobufCEnumDescriptor *descriptor, int32_t number) {
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(descriptor, number);
    if (!value) return PyUnicode_FromString("unknown");
    char name[64];
    const char *from = value->name + strlen(descriptor->short_name) + 1;
    size_t len = 0;
    for (; from[len] && len + 1 < sizeof name; len++) name[len] = (char)tolower(from[len]);
    return PyUnicode_FromStringAndSize(name, (Py_ssize_t)len);
}

/* One value of the field `field`, at `at`. */
static PyObject *value_new(const ProtobufCFieldDescriptor *field, const void *at) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_BOOL: return PyBool_FromLong(*(const protobuf_c_boolean *)at);
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32: return PyLong_FromLong(*(const int32_t *)at);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32: return PyLong_FromUnsignedLong(*(const uint32_t *)at);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64: return PyLong_FromLongLong(*(const int64_t *)at);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64: return PyLong_FromUnsignedLongLong(*(const uint64_t *)at);
    case PROTOBUF_C_TYPE_ENUM: return enum_new(field->descriptor, *(const int32_t *)at);
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(char *const *)at;
        return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    }
    case PROTOBUF_C_TYPE_MESSAGE: return message_new(*(ProtobufCMessage *const *)at);
    default: return Py_NewRef(Py_None); /* no field of other types is asked for */
    }
}

static PyObject *repeated_new(const ProtobufCFieldDescriptor *field,
                              const ProtobufCMessage *message) {
    const char *base = (const char *)message;
    size_t n = *(const size_t *)(base + field->quantifier_offset);
    ProtobufCMessage *const *items = *(ProtobufCMessage *const *const *)(base + field->offset);
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list && i < n; i++) {
        PyObject *item = message_new(items[i]);
        if (!item || PyList_SetItem(list, (Py_ssize_t)i, item)) Py_CLEAR(list);
    }
    return list;
}

static PyObject *message_new(const ProtobufCMessage *message) {
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    PyObject *dict = PyDict_New();
    for (unsigned i = 0; dict && i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        bool is_list = field->label == PROTOBUF_C_LABEL_REPEATED;
        PyObject *value = is_list ? repeated_new(field, message)
                                  : value_new(field, (const char *)message + field->offset);
        if (!value || PyDict_SetItemString(dict, field->name, value)) Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

PyObject *dkv_net_message_new(const dkv_net_state *state,
                              const ProtobufCMessageDescriptor *descriptor, dkv_slice bytes) {
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, NULL, bytes.len, bytes.data);
    if (!message) return dkv_py_raise(&state->errors, DKV_ERR_PROTOCOL, "a malformed reply");
    PyObject *dict = message_new(message);
    protobuf_c_message_free_unpacked(message, NULL);
    return dict;
}
