/* Doubly linked lists whose links stand inside the linked things, so that a thing leaves its list
 * in constant time, wherever it is in it. */
#ifndef DKV_CLIENT_LIST_H
#define DKV_CLIENT_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* All zero: in no list. */
typedef struct list_node {
    struct list_node *prev;
    struct list_node *next;
} list_node;

/* A circle through `head`, which holds nothing. */
typedef struct list {
    list_node head;
} list;

/* The thing of `type` whose member `field` is `node`. */
#define LIST_OWNER(node, type, field) ((type *)((char *)(node)-offsetof(type, field)))

static inline void list_init(list *l) {
    l->head = (list_node){&l->head, &l->head};
}

static inline bool list_is_empty(const list *l) {
    return l->head.next == &l->head;
}

/* Puts `node` at the end, unless it is in a list already. */
static inline void list_add(list *l, list_node *node) {
    if (node->next) return;
    *node = (list_node){l->head.prev, &l->head};
    l->head.prev->next = node;
    l->head.prev = node;
}

/* Takes `node` out of its list, if it is in one. */
static inline void list_remove(list_node *node) {
    if (!node->next) return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    *node = (list_node){0};
}

/* The first node, or NULL. It stays in the list. */
static inline list_node *list_first(const list *l) {
    return list_is_empty(l) ? NULL : l->head.next;
}

/* Takes the first node out and returns it, or NULL. */
static inline list_node *list_pop(list *l) {
    list_node *node = list_first(l);
    if (node) list_remove(node);
    return node;
}

/* Moves all nodes of `from` to `to`, which is initialised by that. */
static inline void list_move(list *from, list *to) {
    list_init(to);
    if (list_is_empty(from)) return;
    *to = *from;
    to->head.next->prev = &to->head;
    to->head.prev->next = &to->head;
    list_init(from);
}

#endif
