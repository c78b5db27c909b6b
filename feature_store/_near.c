/* The near cache's table in C: a set of WAYS slots per hash, rows copied in and out. */
#include "_fast.h"

struct table {
    int64_t *ids;
    uint16_t *versions;
    uint8_t *codes, *flags, *status, *recent;
    Py_ssize_t sets, ways;
};

/* The table in six views (ids, versions, codes, flags, status, recent); 0 on success. */
static int open_table(struct table *t, Py_buffer *v, PyObject *sets, PyObject *ways) {
    t->sets = PyLong_AsSsize_t(sets), t->ways = PyLong_AsSsize_t(ways);
    Py_ssize_t slots = t->sets * t->ways;
    if (PyErr_Occurred() || slots <= 0 || v[0].len < slots * 8 || v[1].len < slots * 2 ||
        v[2].len < slots * CODES_BYTES || v[3].len < slots * 2 || v[4].len < slots ||
        v[5].len < slots)
        return -1;
    t->ids = v[0].buf, t->versions = v[1].buf, t->codes = v[2].buf;
    t->flags = v[3].buf, t->status = v[4].buf, t->recent = v[5].buf;
    return 0;
}

static inline Py_ssize_t first_of(const struct table *t, uint64_t hashed) {
    return (Py_ssize_t)(((hashed >> 32) * (uint64_t)t->sets) >> 32) * t->ways;
}

/* near(ids, table: six arrays, codes, flags, status, left, sets, ways, version) -> the number of
 * ids that are not there; `left` int64 begins with their positions. Rows of the others are set. */
PyObject *near_rows(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_buffer v[11];
    struct table t;
    if (nargs != 14) return PyErr_Format(PyExc_TypeError, "near takes 14 arguments");
    long version = PyLong_AsLong(args[13]);
    if (PyErr_Occurred() || acquire(args, v, 11, 1) < 0) return NULL;
    Py_ssize_t n = v[0].len / 8, misses = 0;
    if (open_table(&t, v + 1, args[11], args[12]) < 0 || v[7].len < n * CODES_BYTES ||
        v[8].len < n * 2 || v[9].len < n || v[10].len < n * 8)
        return too_small(v, 11);
    const char *ids = v[0].buf;
    uint8_t *codes = v[7].buf, *flags = v[8].buf, *status = v[9].buf;
    int64_t *left = v[10].buf;
    for (Py_ssize_t i = 0; i < n; i++) {
        int64_t id = (int64_t)load64(ids + 8 * i);
        Py_ssize_t slot = first_of(&t, (uint64_t)id * GOLDEN), stop = slot + t.ways;
        while (slot < stop && (t.ids[slot] != id || t.versions[slot] != version)) slot++;
        if (slot == stop) {
            left[misses++] = i;
            continue;
        }
        t.recent[slot] = 1;
        memcpy(codes + CODES_BYTES * i, t.codes + CODES_BYTES * slot, CODES_BYTES);
        memcpy(flags + 2 * i, t.flags + 2 * slot, 2);
        status[i] = t.status[slot];
    }
    release(v, 11);
    return PyLong_FromSsize_t(misses);
}

/* keep(ids, index, codes, flags, status, table: six arrays, sets, ways, version): store rows; that
 * of ids[i] is row index[i], or row i where index is None. A row takes its own slot, else a free
 * one, else one that was not used of late, else the set gets its second chance. */
PyObject *keep_rows(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_buffer v[11];
    struct table t;
    if (nargs != 14) return PyErr_Format(PyExc_TypeError, "keep takes 14 arguments");
    long version = PyLong_AsLong(args[13]);
    if (PyErr_Occurred() || acquire(args, v, 11, 5) < 0) return NULL;
    Py_ssize_t n = v[0].len / 8, rows = v[4].len;
    const int64_t *index = v[1].buf;
    if (open_table(&t, v + 5, args[11], args[12]) < 0 || v[2].len < rows * CODES_BYTES ||
        v[3].len < rows * 2 || (index ? v[1].len < n * 8 : rows < n))
        return too_small(v, 11);
    for (Py_ssize_t i = 0; i < n; i++) {
        int64_t id = (int64_t)load64((const char *)v[0].buf + 8 * i);
        uint64_t row = index ? (uint64_t)index[i] : (uint64_t)i, hashed = (uint64_t)id * GOLDEN;
        if (row >= (uint64_t)rows) return too_small(v, 11);
        Py_ssize_t first = first_of(&t, hashed), slot = -1, unused = -1;
        for (Py_ssize_t at = first; at < first + t.ways; at++) {
            if (t.ids[at] == id && t.versions[at] == version) {
                slot = at;
                break;
            }
            if (t.ids[at] == 0) {
                if (unused < 0 || t.ids[unused] != 0) unused = at;
            } else if (unused < 0 && !t.recent[at]) {
                unused = at;
            }
        }
        if (slot < 0) slot = unused;
        if (slot < 0) {
            memset(t.recent + first, 0, (size_t)t.ways);
            slot = first + (Py_ssize_t)((hashed >> 8) % (uint64_t)t.ways);
        }
        t.ids[slot] = id;
        t.versions[slot] = (uint16_t)version;
        t.recent[slot] = 0;
        memcpy(t.codes + CODES_BYTES * slot, (uint8_t *)v[2].buf + CODES_BYTES * row, CODES_BYTES);
        memcpy(t.flags + 2 * slot, (uint8_t *)v[3].buf + 2 * row, 2);
        t.status[slot] = ((uint8_t *)v[4].buf)[row];
    }
    release(v, 11);
    Py_RETURN_NONE;
}
