/* The compiled form of all files of proto/, which the build embeds: a serialised
 * google.protobuf.FileDescriptorSet, each file in it behind those that it imports. */
#ifndef DKV_HOST_DESCRIPTORS_H
#define DKV_HOST_DESCRIPTORS_H

#include "base/bytes.h"

#define DKV_DESCRIPTORS_MAX 16u /* files in the set */
#define DKV_SERVICES_MAX 16u

/* Some files of the set, each a serialised FileDescriptorProto. They borrow from the set, which
 * lives as long as the program. */
typedef struct dkv_descriptors {
    size_t n;
    dkv_slice files[DKV_DESCRIPTORS_MAX];
} dkv_descriptors;

typedef struct dkv_service_name {
    char text[96];
} dkv_service_name;

/* The file `name` ("dkv.proto") and all that it imports, itself first; none if there is no such
 * file. */
void dkv_descriptors_by_name(dkv_slice name, dkv_descriptors *out);

/* As above, for the file that declares the message, enumeration, service or method `symbol`, by its
 * full name ("dkv.v1.KV.Put"). */
void dkv_descriptors_by_symbol(dkv_slice symbol, dkv_descriptors *out);

/* The full names of all services. Returns how many there are. */
size_t dkv_descriptors_services(dkv_service_name names[DKV_SERVICES_MAX]);

#endif
