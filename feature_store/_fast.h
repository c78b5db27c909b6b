/* What the C files share: buffers of numpy arrays, and the hash that places ids. */
#ifndef TESSERA_FAST_H
#define TESSERA_FAST_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define INTERFACE 3 /* as in compiled.py: what a file built from older sources is told by */
#define GOLDEN 0x9E3779B97F4A7C15ULL
#define CODES_BYTES 12

static inline uint64_t load64(const void *at) {
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
}

static inline void release(Py_buffer *views, int count) {
    while (count--)
        if (views[count].obj != NULL) PyBuffer_Release(&views[count]);
}

/* Views of the first `count` arguments, writable from `writable` on; None is an empty view whose
 * buf is NULL. 0 on success. */
static inline int acquire(PyObject *const *args, Py_buffer *views, int count, int writable) {
    for (int i = 0; i < count; i++) {
        int flags = i >= writable ? PyBUF_WRITABLE : PyBUF_SIMPLE;
        if (args[i] == Py_None) {
            memset(&views[i], 0, sizeof views[i]);
        } else if (PyObject_GetBuffer(args[i], &views[i], flags) < 0) {
            release(views, i);
            return -1;
        }
    }
    return 0;
}

static inline PyObject *too_small(Py_buffer *views, int count) {
    release(views, count);
    PyErr_SetString(PyExc_ValueError, "an array is smaller than the ids ask for");
    return NULL;
}

#define LOT 10  /* ids, order, groups, index, codes, flags, status, state, version, bare */
#define VIEWS 8 /* all of them but the last two */

enum { GOING = 0, DONE = 1, UNUSUAL = 2, CLOSED = 3, LATE = 4, FAILED = 5, SURPLUS = 6 };
/* as in compiled.py */

struct state { /* decoding.STATE */
    int64_t result, end;     /* bytes received */
    int64_t at, group, left; /* where decoding goes on; left: rows of the group, once it began */
    int64_t begun, row, corrupt, error, pointed; /* of the pointer: 1 there, 2 not there */
    uint8_t pointer[24];
};

struct lot {
    Py_buffer v[VIEWS];
    const int64_t *order, *groups, *index;
    int64_t all;
    Py_ssize_t ids, rows, count, out; /* rows asked for, groups, rows of the answer */
    struct state *state;
    unsigned version;
    int bare; /* values without an array around a group: replies of HGETs, not of MGETs */
};

#define PARTS 6   /* ids, order, groups, prefix, tags, tail */
#define PREFIX 96 /* a namespace of 64 characters, and what stands around it */

/* Ids in an order, in groups, and what their commands are made of.
 * order: int64 positions in ids, or None; groups: int64, twice the number of ids, plus one where
 * the pointer (tail) is read along; None is one group of all, with the pointer.
 * prefix: "$<length>\r\n<ns>:r<version>{"; tags: 64 x 3 bytes; tail: the pointer's key. */
struct request {
    Py_buffer v[PARTS];
    const int64_t *order, *groups;
    int64_t all;
    Py_ssize_t count, size; /* groups, bytes of the prefix */
    char prefix[PREFIX];
};

/* A plain lookup's plan: a tuple of these, see quick.py. */
enum { PREFIX_OF, TAGS_OF, TAIL, COUNTS, POINTER, NUMBER, KEYS, LINKS, IDLE, NDARRAY, EMPTY, U16, U8,
       FOUND, NAME, LEAST_S, ROW_S, LONGEST_S, PLAN };
#define FIELD(plan, i) PyTuple_GET_ITEM(plan, i)
enum { LOOKUPS, IDS, MICROSECONDS, LATENCIES }; /* tally.Shared */
enum name { CODES, STATUS, FLAGS, VERSION, DESCRIPTOR, STATE, BUFFER, IS_CLOSED, CLOSE, GIVE, NAMES };

/* _fast.c */
PyObject *mgets(struct request *r); /* whose views are taken; NULL with an error set */
int plain(const Py_buffer *ids);
int in_groups(Py_buffer *groups, Py_ssize_t n, Py_ssize_t keys);
/* _rows.c */
int check_lot(struct lot *lot); /* whose views are taken; 0, or -1 with an error set */
int open_lot(struct lot *lot, PyObject *const *args);
int64_t decode(struct lot *lot, const uint8_t *reply);
PyObject *named(PyObject *of, enum name which);
int parts_of(PyObject *plan, PyObject *link, Py_ssize_t n, PyObject **parts);
PyObject *found(PyObject *plan, PyObject *const *parts);
void count(Py_buffer *shared, Py_ssize_t n, double seconds);
PyObject *scan_rows(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
/* _near.c */
PyObject *near_rows(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *keep_rows(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
/* _talk.c */
PyObject *talk(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *ask(PyObject *self, PyObject *const *args, Py_ssize_t nargs);

#endif
