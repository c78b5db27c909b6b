/* The lookup's inner loops in C, for services where microseconds count: the module, and commands.
 *
 * In: buffers of numpy arrays. Out: MGET commands, ids grouped by hash tag; _talk.c sends and
 * decodes, _near.c reads the near cache's table. Everything here has a numpy twin (keys.py,
 * rows.py and record.py, near.py) that gives the same answers and is used where this is not built;
 * one test suite runs on both. Only for little-endian machines.
 */
#include "_fast.h"

#define TAGS 64
#define PREFIX 96 /* a namespace of 64 characters, and what stands around it */

static inline unsigned tag_of(uint64_t id) { return (unsigned)((id * GOLDEN) >> 58); }

/* "*<elements>\r\n$4\r\nMGET\r\n" of a group; its length. */
static int heading(char *at, int64_t group) {
    return sprintf(at, "*%lld\r\n$4\r\nMGET\r\n", (long long)(group / 2 + group % 2 + 1));
}

/* mget(ids, order, groups, prefix, tags, tail) -> bytes: a MGET per group of the ids in an order.
 * order: int64 positions in ids, or None; groups: int64, twice the number of ids, plus one where
 * the pointer (tail, one more element) is read along; None is one group of all, with the pointer.
 * prefix: "$<length>\r\n<ns>:r<version>{"; tags: 64 x 3 bytes. */
static PyObject *mget(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_buffer v[6];
    char prefix[PREFIX] = {0}, head[40];
    if (nargs != 6) return PyErr_Format(PyExc_TypeError, "mget takes 6 arguments");
    if (acquire(args, v, 6, 6) < 0) return NULL;
    Py_ssize_t n = v[0].len / 8, size = v[3].len, width = size + 3 + 1 + 8 + 2;
    const int64_t *order = v[1].buf, all = 2 * n + 1, *groups = v[2].buf ? v[2].buf : &all;
    Py_ssize_t count = v[2].buf ? v[2].len / 8 : 1, left = order ? v[1].len / 8 : n, room = 0;
    if (v[4].len < 3 * TAGS || size > PREFIX) return too_small(v, 6);
    memcpy(prefix, v[3].buf, size);
    for (Py_ssize_t g = 0; g < count; g++) {
        left -= groups[g] / 2;
        if (groups[g] < 0 || left < 0) return too_small(v, 6);
        room += heading(head, groups[g]) + groups[g] / 2 * width + groups[g] % 2 * v[5].len;
    }
    for (Py_ssize_t k = 0; order && k < v[1].len / 8; k++)
        if ((uint64_t)order[k] >= (uint64_t)n) return too_small(v, 6);
    PyObject *out = PyBytes_FromStringAndSize(NULL, room + PREFIX);
    if (out == NULL) goto done;
    char *at = PyBytes_AS_STRING(out);
    for (Py_ssize_t g = 0, k = 0; g < count; g++) {
        Py_ssize_t stop = k + groups[g] / 2;
        at += heading(at, groups[g]);
        for (; k < stop; k++) {
            uint64_t id = load64((const char *)v[0].buf + 8 * (order ? order[k] : k));
            memcpy(at, prefix, 32); /* of a fixed size, as most prefixes are shorter */
            if (size > 32) memcpy(at + 32, prefix + 32, PREFIX - 32);
            at += size;
            memcpy(at, (const char *)v[4].buf + 3 * tag_of(id), 3);
            at[3] = '}';
            memcpy(at + 4, &id, 8);
            memcpy(at + 12, "\r\n", 2);
            at += 14;
        }
        if (groups[g] % 2) memcpy(at, v[5].buf, v[5].len), at += v[5].len;
    }
    Py_SET_SIZE(out, room); /* the slack stays behind the end */
    PyBytes_AS_STRING(out)[room] = 0;
done:
    release(v, 6);
    return out;
}

/* split(ids, owner, order, groups, spans): ids by the node that owns them, then by tag.
 * owner: int64 (64,), the node of each tag, -1 for none. Out: order int64 (n,), the positions of
 * the ids node by node, those without a node first; groups int64 (65,), as `mget` takes them, node
 * by node; spans int64 (nodes + 1, 2): where each node's rows and groups end, entry 0 those of no
 * node. Tag 0 has the pointer along, even where it has no ids. */
static PyObject *split(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_buffer v[5];
    if (nargs != 5) return PyErr_Format(PyExc_TypeError, "split takes 5 arguments");
    if (acquire(args, v, 5, 2) < 0) return NULL;
    Py_ssize_t n = v[0].len / 8, nodes = v[4].len / 16 - 1, rows = 0, used = 0;
    if (v[1].len < 8 * TAGS || v[2].len < 8 * n || v[3].len < 8 * (TAGS + 1) || nodes < 0)
        return too_small(v, 5);
    const char *ids = v[0].buf;
    const int64_t *owner = v[1].buf;
    int64_t *order = v[2].buf, *groups = v[3].buf, *spans = v[4].buf;
    Py_ssize_t counts[TAGS] = {0}, starts[TAGS] = {0};
    for (Py_ssize_t i = 0; i < n; i++) counts[tag_of(load64(ids + 8 * i))]++;
    for (Py_ssize_t node = -1; node < nodes; node++) {
        for (int tag = 0; tag < TAGS; tag++) {
            int lost = owner[tag] < 0 || owner[tag] >= nodes;
            if (node < 0 ? !lost : owner[tag] != node) continue;
            starts[tag] = rows;
            rows += counts[tag];
            if (node >= 0 && (counts[tag] || tag == 0)) groups[used++] = 2 * counts[tag] + !tag;
        }
        spans[2 * (node + 1)] = rows;
        spans[2 * (node + 1) + 1] = used;
    }
    for (Py_ssize_t i = 0; i < n; i++) order[starts[tag_of(load64(ids + 8 * i))]++] = i;
    release(v, 5);
    Py_RETURN_NONE;
}

/* lowest(ids) -> the least of int64 ids, 1 where there are none. */
static PyObject *lowest(PyObject *self, PyObject *ids) {
    Py_buffer view;
    if (PyObject_GetBuffer(ids, &view, PyBUF_SIMPLE) < 0) return NULL;
    int64_t least = view.len < 8 ? 1 : INT64_MAX;
    for (Py_ssize_t i = 0; i < view.len / 8; i++) {
        int64_t id = (int64_t)load64((const char *)view.buf + 8 * i);
        least = id < least ? id : least;
    }
    PyBuffer_Release(&view);
    return PyLong_FromLongLong(least);
}

#define METHOD(name, function, text) \
    {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, text}
static PyMethodDef methods[] = {
    METHOD("mget", mget, "MGETs of records."),
    METHOD("split", split, "Order ids by node and tag."),
    METHOD("rows", scan_rows, "Decode the reply of MGETs."),
    METHOD("talk", talk, "Send MGETs, receive and decode."),
    METHOD("near", near_rows, "Rows of a near table."),
    METHOD("keep", keep_rows, "Fill a near table."),
    {"lowest", lowest, METH_O, "The least id."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_fast", "Inner loops of the lookup.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__fast(void) {
#if PY_LITTLE_ENDIAN
    return PyModuleDef_Init(&module);
#else
    PyErr_SetString(PyExc_ImportError, "only for little-endian machines");
    return NULL;
#endif
}
