/* The lookup's inner loops in C, for services where microseconds count.
 *
 * In: buffers of numpy arrays. Out: a MGET command; rows decoded and verified straight from the
 * server's bytes; rows of the near cache's table. Everything here has a numpy twin (keys.py,
 * rows.py and record.py, near.py) that gives the same answers and is used where this is not built;
 * one test suite runs on both. Only for little-endian machines.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define GOLDEN 0x9E3779B97F4A7C15ULL
#define RECORD 24
#define ROW 31 /* "$24\r\n", record, "\r\n" */
#define CODES_BYTES 12
#define INCOMPLETE (-1)
#define UNUSUAL (-2)

enum { MISS = 0, HIT = 1, BLOCKED = 4 };

static inline uint64_t load64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
}

static inline uint64_t mix(uint64_t x) {
    x ^= x << 21;
    x ^= x >> 24;
    return x ^ (x << 25);
}

/* Status of a record of an id in a version; -1 for bytes that are no such record. */
static inline int judge(const uint8_t *record, uint64_t id, unsigned version) {
    uint64_t w1 = load64(record + 8), control = load64(record + 16);
    uint64_t x = mix((id * GOLDEN) ^ load64(record));
    x = mix(x ^ w1);
    x = mix(x ^ (control & 0xFFFFFFFFFFFFULL));
    x ^= x >> 32;
    x ^= x >> 16;
    if ((x & 0xFFFF) != control >> 48 || (control & 7) != 1 || w1 >> 48 != version) return -1;
    if (control & 0x30) return BLOCKED;
    return control & 8 ? MISS : HIT;
}

static void release(Py_buffer *views, int count) {
    while (count--) PyBuffer_Release(&views[count]);
}

/* Views of the first `count` arguments, writable from `writable` on; 0 on success. */
static int acquire(PyObject *const *args, Py_buffer *views, int count, int writable) {
    for (int i = 0; i < count; i++) {
        int flags = i >= writable ? PyBUF_WRITABLE : PyBUF_SIMPLE;
        if (PyObject_GetBuffer(args[i], &views[i], flags) < 0) {
            release(views, i);
            return -1;
        }
    }
    return 0;
}

static int too_small(Py_buffer *views, int count) {
    release(views, count);
    PyErr_SetString(PyExc_ValueError, "an array is smaller than the ids ask for");
    return -1;
}

/* mget(ids, prefix, tags, tail) -> bytes: "*n..MGET" + per id prefix, tag, "}", id + tail.
 * prefix: "$<length>\r\n<ns>:r<version>{"; tags: 64 x 3 bytes; tail: one more element. */
static PyObject *mget(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_buffer v[4];
    if (nargs != 4) return PyErr_Format(PyExc_TypeError, "mget takes 4 arguments");
    if (acquire(args, v, 4, 4) < 0) return NULL;
    Py_ssize_t n = v[0].len / 8, width = v[1].len + 3 + 1 + 8 + 2;
    if (v[2].len < 192 && too_small(v, 4)) return NULL;
    char head[64];
    int head_size = snprintf(head, sizeof head, "*%zd\r\n$4\r\nMGET\r\n", n + 2);
    PyObject *out = PyBytes_FromStringAndSize(NULL, head_size + n * width + v[3].len);
    if (out != NULL) {
        char *at = PyBytes_AS_STRING(out);
        memcpy(at, head, head_size);
        at += head_size;
        for (Py_ssize_t i = 0; i < n; i++) {
            uint64_t id = load64((const uint8_t *)v[0].buf + 8 * i);
            memcpy(at, v[1].buf, v[1].len);
            at += v[1].len;
            memcpy(at, (const char *)v[2].buf + 3 * ((id * GOLDEN) >> 58), 3);
            at[3] = '}';
            memcpy(at + 4, &id, 8);
            memcpy(at + 12, "\r\n", 2);
            at += 14;
        }
        memcpy(at, v[3].buf, v[3].len);
    }
    release(v, 4);
    return out;
}

/* rows(ids, reply, codes, flags, status, valid, end, version) -> where the pointer's value begins,
 * 0 if there is none, INCOMPLETE, or UNUSUAL: then the numpy reader must look at the reply.
 * The reply is that of one MGET of the ids' records and the pointer. */
static PyObject *rows(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_buffer v[6];
    if (nargs != 8) return PyErr_Format(PyExc_TypeError, "rows takes 8 arguments");
    Py_ssize_t end = PyLong_AsSsize_t(args[6]);
    long version = PyLong_AsLong(args[7]);
    if (PyErr_Occurred() || acquire(args, v, 6, 2) < 0) return NULL;
    Py_ssize_t n = v[0].len / 8;
    if (v[2].len < n * CODES_BYTES || v[3].len < n * 2 || v[4].len < n || v[5].len < n ||
        end > v[1].len) {
        too_small(v, 6);
        return NULL;
    }
    const uint8_t *reply = v[1].buf;
    uint8_t *codes = v[2].buf, *flags = v[3].buf, *status = v[4].buf, *valid = v[5].buf;
    char head[32];
    Py_ssize_t at = snprintf(head, sizeof head, "*%zd\r\n", n + 1);
    Py_ssize_t result = UNUSUAL;
    if (end < at) {
        result = memcmp(reply, head, end) ? UNUSUAL : INCOMPLETE;
        goto done;
    }
    if (memcmp(reply, head, at)) goto done;
    for (Py_ssize_t i = 0; i <= n; i++) {
        const uint8_t *element = reply + at;
        Py_ssize_t left = end - at;
        int verdict = MISS, sound = 1;
        if (left >= 5 && !memcmp(element, "$-1\r\n", 5)) {
            at += 5;
            if (i == n) {
                result = 0;
                break;
            }
        } else if (left >= ROW) {
            if (memcmp(element, "$24\r\n", 5) || memcmp(element + 29, "\r\n", 2)) goto done;
            at += ROW;
            if (i == n) {
                result = at - ROW + 5;
                break;
            }
            verdict = judge(element + 5, load64((const uint8_t *)v[0].buf + 8 * i), version);
            sound = verdict >= 0;
        } else {
            Py_ssize_t seen = left < 5 ? left : 5;
            if (!memcmp(element, "$24\r\n", seen) || !memcmp(element, "$-1\r\n", seen))
                result = INCOMPLETE;
            goto done;
        }
        if (verdict == HIT) {
            memcpy(codes + CODES_BYTES * i, element + 5, CODES_BYTES);
            memcpy(flags + 2 * i, element + 5 + CODES_BYTES, 2);
        } else {
            memset(codes + CODES_BYTES * i, 0xFF, CODES_BYTES);
            memset(flags + 2 * i, 0, 2);
        }
        status[i] = sound ? verdict : MISS;
        valid[i] = sound;
    }
    if (at != end) result = UNUSUAL;
done:
    release(v, 6);
    return PyLong_FromSsize_t(result);
}

/* near(ids, table_ids, table_versions, table_codes, table_flags, table_status,
 *      recent, hit, codes, flags, status, sets, ways, version) -> hits */
static PyObject *near_rows(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_buffer v[11];
    if (nargs != 14) return PyErr_Format(PyExc_TypeError, "near takes 14 arguments");
    Py_ssize_t sets = PyLong_AsSsize_t(args[11]), ways = PyLong_AsSsize_t(args[12]);
    long version = PyLong_AsLong(args[13]);
    if (PyErr_Occurred() || acquire(args, v, 11, 6) < 0) return NULL;
    Py_ssize_t n = v[0].len / 8, slots = sets * ways, hits = 0;
    if (v[1].len < slots * 8 || v[2].len < slots * 2 || v[3].len < slots * CODES_BYTES ||
        v[4].len < slots * 2 || v[5].len < slots || v[6].len < slots || v[7].len < n ||
        v[8].len < n * CODES_BYTES || v[9].len < n * 2 || v[10].len < n) {
        too_small(v, 11);
        return NULL;
    }
    const int64_t *ids = v[0].buf, *table = v[1].buf;
    const uint16_t *versions = v[2].buf;
    uint8_t *recent = v[6].buf, *hit = v[7].buf;
    for (Py_ssize_t i = 0; i < n; i++) {
        uint64_t hashed = (uint64_t)ids[i] * GOLDEN;
        Py_ssize_t first = (Py_ssize_t)(((hashed >> 32) * (uint64_t)sets) >> 32) * ways;
        hit[i] = 0;
        for (Py_ssize_t slot = first; slot < first + ways; slot++) {
            if (table[slot] != ids[i] || versions[slot] != version) continue;
            hit[i] = recent[slot] = 1;
            hits++;
            memcpy((uint8_t *)v[8].buf + CODES_BYTES * i,
                   (uint8_t *)v[3].buf + CODES_BYTES * slot, CODES_BYTES);
            memcpy((uint8_t *)v[9].buf + 2 * i, (uint8_t *)v[4].buf + 2 * slot, 2);
            ((uint8_t *)v[10].buf)[i] = ((uint8_t *)v[5].buf)[slot];
            break;
        }
    }
    release(v, 11);
    return PyLong_FromSsize_t(hits);
}

/* keep(ids, chosen, codes, flags, status, table_ids, table_versions, table_codes, table_flags,
 *      table_status, recent, sets, ways, version): store chosen rows. A row takes its own slot,
 * else a free one, else one that was not used of late, else the set gets its second chance. */
static PyObject *keep_rows(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_buffer v[11];
    if (nargs != 14) return PyErr_Format(PyExc_TypeError, "keep takes 14 arguments");
    Py_ssize_t sets = PyLong_AsSsize_t(args[11]), ways = PyLong_AsSsize_t(args[12]);
    long version = PyLong_AsLong(args[13]);
    if (PyErr_Occurred() || acquire(args, v, 11, 5) < 0) return NULL;
    Py_ssize_t n = v[0].len / 8, slots = sets * ways;
    if (v[1].len < n || v[2].len < n * CODES_BYTES || v[3].len < n * 2 || v[4].len < n ||
        v[5].len < slots * 8 || v[6].len < slots * 2 || v[7].len < slots * CODES_BYTES ||
        v[8].len < slots * 2 || v[9].len < slots || v[10].len < slots) {
        too_small(v, 11);
        return NULL;
    }
    const int64_t *ids = v[0].buf;
    const uint8_t *chosen = v[1].buf;
    int64_t *table = v[5].buf;
    uint16_t *versions = v[6].buf;
    uint8_t *recent = v[10].buf;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!chosen[i]) continue;
        uint64_t hashed = (uint64_t)ids[i] * GOLDEN;
        Py_ssize_t first = (Py_ssize_t)(((hashed >> 32) * (uint64_t)sets) >> 32) * ways;
        Py_ssize_t slot = -1, unused = -1;
        for (Py_ssize_t at = first; at < first + ways; at++) {
            if (table[at] == ids[i] && versions[at] == version) {
                slot = at;
                break;
            }
            if (table[at] == 0) {
                if (unused < 0 || table[unused] != 0) unused = at;
            } else if (unused < 0 && !recent[at]) {
                unused = at;
            }
        }
        if (slot < 0) slot = unused;
        if (slot < 0) {
            memset(recent + first, 0, ways);
            slot = first + (Py_ssize_t)((hashed >> 8) % (uint64_t)ways);
        }
        table[slot] = ids[i];
        versions[slot] = (uint16_t)version;
        recent[slot] = 0;
        memcpy((uint8_t *)v[7].buf + CODES_BYTES * slot,
               (uint8_t *)v[2].buf + CODES_BYTES * i, CODES_BYTES);
        memcpy((uint8_t *)v[8].buf + 2 * slot, (uint8_t *)v[3].buf + 2 * i, 2);
        ((uint8_t *)v[9].buf)[slot] = ((uint8_t *)v[4].buf)[i];
    }
    release(v, 11);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"mget", (PyCFunction)(void (*)(void))mget, METH_FASTCALL, "A MGET of records."},
    {"rows", (PyCFunction)(void (*)(void))rows, METH_FASTCALL, "Decode a MGET's reply."},
    {"near", (PyCFunction)(void (*)(void))near_rows, METH_FASTCALL, "Rows of a near table."},
    {"keep", (PyCFunction)(void (*)(void))keep_rows, METH_FASTCALL, "Fill a near table."},
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
