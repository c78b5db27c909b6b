/* The lookup's inner loops in C, for services where microseconds count: the module, and commands.
 *
 * In: buffers of numpy arrays. Out: commands, ids grouped by hash tag; _talk.c sends and
 * decodes, _near.c reads the near cache's table. Everything here has a numpy twin (keys.py,
 * rows.py and record.py, near.py) that gives the same answers and is used where this is not built;
 * one test suite runs on both. Only for little-endian machines.
 */
#include "_fast.h"

#define TAGS 64
#define KEY_END 4 /* the tag and a brace */

static inline unsigned tag_of(uint64_t id) { return (unsigned)((id * GOLDEN) >> 58); }

/* Make room for the commands of a request whose views are taken: rows of `width` bytes beside the
 * prefix, groups of `head` bytes beside their rows and tail. NULL with an error set. */
static PyObject *lay_out(struct request *r, int width, int head) {
    Py_buffer *v = r->v;
    Py_ssize_t n = v[0].len / 8, left = v[1].buf ? v[1].len / 8 : n, room = PREFIX;
    r->order = v[1].buf, r->all = 2 * n + 1, r->groups = v[2].buf ? v[2].buf : &r->all;
    r->count = v[2].buf ? v[2].len / 8 : 1, r->size = v[3].len;
    if (v[4].len < 3 * TAGS || r->size > PREFIX) return too_small(v, 0);
    memset(r->prefix, 0, PREFIX);
    memcpy(r->prefix, v[3].buf, r->size);
    for (Py_ssize_t g = 0; g < r->count; g++) {
        left -= r->groups[g] / 2;
        if (r->groups[g] < 0 || left < 0) return too_small(v, 0);
        room += head + r->groups[g] / 2 * (r->size + width) + r->groups[g] % 2 * v[5].len;
    }
    for (Py_ssize_t k = 0; r->order && k < v[1].len / 8; k++)
        if ((uint64_t)r->order[k] >= (uint64_t)n) return too_small(v, 0);
    return PyBytes_FromStringAndSize(NULL, room);
}

/* The commands end here; what was too much room stays behind the end. */
static PyObject *cut(PyObject *out, char *at) {
    *at = 0;
    Py_SET_SIZE(out, at - PyBytes_AS_STRING(out));
    return out;
}

static inline uint64_t id_at(const struct request *r, Py_ssize_t k) {
    return load64((const char *)r->v[0].buf + 8 * (r->order ? r->order[k] : k));
}

/* Prefix, tag and brace of an id's key; where it goes on. */
static inline char *begin_key(const struct request *r, char *at, uint64_t id) {
    memcpy(at, r->prefix, 32); /* of a fixed size, as most prefixes are shorter */
    if (r->size > 32) memcpy(at + 32, r->prefix + 32, PREFIX - 32);
    at += r->size;
    memcpy(at, (const char *)r->v[4].buf + 3 * tag_of(id), 3);
    at[3] = '}';
    return at + KEY_END;
}

static inline char *end_group(const struct request *r, char *at, int64_t group) {
    if (group % 2 == 0) return at;
    memcpy(at, r->v[5].buf, r->v[5].len);
    return at + r->v[5].len;
}

PyObject *mgets(struct request *r) {
    PyObject *out = lay_out(r, KEY_END + 8 + 2, 40);
    if (out == NULL) return NULL;
    char *at = PyBytes_AS_STRING(out);
    for (Py_ssize_t g = 0, k = 0; g < r->count; g++) {
        int64_t group = r->groups[g];
        Py_ssize_t stop = k + group / 2;
        at += sprintf(at, "*%lld\r\n$4\r\nMGET\r\n", (long long)(group / 2 + group % 2 + 1));
        for (; k < stop; k++) {
            uint64_t id = id_at(r, k);
            at = begin_key(r, at, id);
            memcpy(at, &id, 8);
            memcpy(at + 8, "\r\n", 2);
            at += 10;
        }
        at = end_group(r, at, group);
    }
    return cut(out, at);
}

/* mget(ids, order, groups, prefix, tags, tail) -> bytes: a MGET per group of the ids in an order. */
static PyObject *mget(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    struct request r;
    if (nargs != PARTS) return PyErr_Format(PyExc_TypeError, "mget takes %d arguments", PARTS);
    if (acquire(args, r.v, PARTS, PARTS) < 0) return NULL;
    PyObject *out = mgets(&r);
    release(r.v, PARTS);
    return out;
}

/* hgets(ids, order, groups, prefix, tags, tail, bits) -> bytes: a HGET per id, see buckets.py.
 * prefix: a HGET up to its key's "{"; tail: the pointer's GET; bits: 0..24. */
static PyObject *hgets(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    struct request r;
    if (nargs != 7) return PyErr_Format(PyExc_TypeError, "hgets takes 7 arguments");
    long bits = PyLong_AsLong(args[6]);
    if (PyErr_Occurred()) return NULL;
    if (bits < 0 || bits > 24) return PyErr_Format(PyExc_ValueError, "bits must be 0..24");
    if (acquire(args, r.v, PARTS, PARTS) < 0) return NULL;
    PyObject *out = lay_out(&r, KEY_END + 3 + 2 + 4 + 8 + 2, 0);
    if (out == NULL) {
        release(r.v, PARTS);
        return NULL;
    }
    char *at = PyBytes_AS_STRING(out);
    for (Py_ssize_t g = 0, k = 0; g < r.count; g++) {
        Py_ssize_t stop = k + r.groups[g] / 2;
        for (; k < stop; k++) {
            uint64_t id = id_at(&r, k), bucket = (id * GOLDEN << 6) >> 6 >> (58 - bits);
            int width = 1;
            while (width < 8 && id >> (8 * width)) width++;
            at = begin_key(&r, at, id);
            memcpy(at, &bucket, 3);
            memcpy(at + 3, "\r\n$0\r\n", 6);
            at[6] = (char)('0' + width);
            memcpy(at + 9, &id, 8);
            at += 9 + width;
            memcpy(at, "\r\n", 2);
            at += 2;
        }
        at = end_group(&r, at, r.groups[g]);
    }
    release(r.v, PARTS);
    return cut(out, at);
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

static int64_t least(const Py_buffer *ids) {
    int64_t found = ids->len < 8 ? 1 : INT64_MAX;
    for (Py_ssize_t i = 0; i < ids->len / 8; i++) {
        int64_t id = (int64_t)load64((const char *)ids->buf + 8 * i);
        found = id < found ? id : found;
    }
    return found;
}

/* lowest(ids) -> the least of int64 ids, 1 where there are none. */
static PyObject *lowest(PyObject *self, PyObject *ids) {
    Py_buffer view;
    if (PyObject_GetBuffer(ids, &view, PyBUF_SIMPLE) < 0) return NULL;
    int64_t found = least(&view);
    PyBuffer_Release(&view);
    return PyLong_FromLongLong(found);
}

/* Ids as `ask` takes them: int64 in one row, each 1 or more. */
int plain(const Py_buffer *ids) {
    return ids->ndim == 1 && ids->itemsize == 8 && ids->len && least(ids) >= 1 &&
           (!strcmp(ids->format, "l") || !strcmp(ids->format, "q"));
}

/* Groups of n ids and the pointer in MGETs of so many keys (single.groups_of); -1 without memory. */
int in_groups(Py_buffer *groups, Py_ssize_t n, Py_ssize_t keys) {
    memset(groups, 0, sizeof *groups);
    if (keys < 1 || n < keys) return 0;
    Py_ssize_t last = n / keys;
    int64_t *each = groups->buf = PyMem_Malloc((size_t)(last + 1) * sizeof *each);
    if (each == NULL) return PyErr_NoMemory(), -1;
    groups->len = (last + 1) * (Py_ssize_t)sizeof *each;
    for (Py_ssize_t g = 0; g < last; g++) each[g] = 2 * keys;
    each[last] = 2 * (n % keys) + 1;
    return 0;
}

#define METHOD(name, function, text) \
    {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, text}
static PyMethodDef methods[] = {
    METHOD("mget", mget, "MGETs of records."),
    METHOD("hgets", hgets, "HGETs of records in buckets."),
    METHOD("split", split, "Order ids by node and tag."),
    METHOD("rows", scan_rows, "Decode the reply of MGETs."),
    METHOD("talk", talk, "Send MGETs, receive and decode."),
    METHOD("ask", ask, "Look ids up over one connection."),
    METHOD("near", near_rows, "Rows of a near table."),
    METHOD("keep", keep_rows, "Fill a near table."),
    {"lowest", lowest, METH_O, "The least id."},
    {NULL, NULL, 0, NULL},
};

static int add_interface(PyObject *module) {
    return PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)add_interface}, {0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_fast", "Inner loops of the lookup.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__fast(void) {
#if PY_LITTLE_ENDIAN
    return PyModuleDef_Init(&module);
#else
    PyErr_SetString(PyExc_ImportError, "only for little-endian machines");
    return NULL;
#endif
}
