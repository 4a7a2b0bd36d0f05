#include "model/message.h"

bool dkv_range_part(uint64_t first, uint64_t last, uint32_t parts, uint32_t i, uint64_t *from,
                    uint64_t *upto) {
    uint64_t width = last - first;   /* tokens − 1: the whole circle has 2^64 */
    uint64_t part = width / parts;   /* tokens of a part − 1 */
    uint64_t begin = i * (part + 1); /* with one part, i = 0 and the overflow does not matter */
    if (begin > width) return false;
    *from = first + begin;
    *upto = width - begin < part ? last : *from + part;
    return true;
}
