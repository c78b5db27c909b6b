/* Decodes the replies of MGETs, or of HGETs, straight from the server's bytes, as they arrive.
 *
 * In: a "lot": the ids that were asked for, the answer's arrays, and a state that says how far
 * decoding has come. Out: rows verified and in their places. What is out of the ordinary is left to
 * the numpy reader, so that there is one place that knows it all.
 */
#include "_fast.h"

#define ROW 31 /* "$24\r\n", record, "\r\n" */

enum { MISS = 0, HIT = 1, BLOCKED = 4 };

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

int check_lot(struct lot *lot) {
    Py_buffer *v = lot->v;
    lot->order = v[1].buf, lot->groups = v[2].buf, lot->index = v[3].buf;
    lot->state = v[7].buf;
    lot->ids = v[0].len / 8;
    lot->rows = lot->order ? v[1].len / 8 : lot->ids;
    lot->all = 2 * lot->rows + 1;
    lot->count = lot->groups ? v[2].len / 8 : 1;
    lot->out = v[6].len;
    int64_t left = lot->rows;
    for (Py_ssize_t g = 0; lot->groups && g < lot->count; g++)
        left = lot->groups[g] < 0 ? -1 : left - lot->groups[g] / 2;
    if (left < 0 || v[7].len < (Py_ssize_t)sizeof(struct state) ||
        v[4].len < lot->out * CODES_BYTES || v[5].len < lot->out * 2 ||
        (lot->index && v[3].len / 8 < lot->ids) || (!lot->index && lot->out < lot->ids)) {
        too_small(v, 0);
        return -1;
    }
    return 0;
}

/* Take a lot's views; 0 on success. */
int open_lot(struct lot *lot, PyObject *const *args) {
    long version = PyLong_AsLong(args[LOT - 2]);
    if (PyErr_Occurred()) return -1;
    lot->version = (unsigned)version;
    lot->bare = PyObject_IsTrue(args[LOT - 1]);
    if (lot->bare < 0 || acquire(args, lot->v, VIEWS, 4) < 0) return -1;
    if (check_lot(lot) == 0) return 0;
    release(lot->v, VIEWS);
    return -1;
}

/* "*<number>\r\n" at the beginning of a group: its length, 0 while incomplete, -1 for others. */
static int header(const uint8_t *at, int64_t size, int64_t number) {
    char expected[32];
    int length = 0;
    char digits[24];
    int n = 0;
    do digits[n++] = (char)('0' + number % 10);
    while ((number /= 10));
    expected[length++] = '*';
    while (n) expected[length++] = digits[--n];
    expected[length++] = '\r';
    expected[length++] = '\n';
    if (memcmp(at, expected, size < length ? (size_t)size : (size_t)length)) return -1;
    return size < length ? 0 : length;
}

/* Decode what has come. The reply is that of the lot's commands. */
int64_t decode(struct lot *lot, const uint8_t *reply) {
    struct state *s = lot->state;
    int64_t end = s->end;
    uint8_t *codes = lot->v[4].buf, *flags = lot->v[5].buf, *status = lot->v[6].buf;
    for (; s->group < lot->count; s->group++, s->begun = 0) {
        int64_t group = lot->groups ? lot->groups[s->group] : lot->all;
        if (!s->begun) {
            if (!lot->bare) {
                int size = header(reply + s->at, end - s->at, group / 2 + group % 2);
                if (size <= 0) return size ? UNUSUAL : GOING;
                s->at += size;
            }
            s->left = group / 2;
            s->begun = 1;
        }
        for (;;) {
            int last = !s->left;
            if (last && group % 2 == 0) break;
            const uint8_t *element = reply + s->at;
            int64_t seen = end - s->at;
            int verdict = MISS;
            uint64_t j = 0;
            if (seen >= ROW && !memcmp(element, "$24\r\n", 5)) {
                if (memcmp(element + 29, "\r\n", 2)) return UNUSUAL;
            } else if (seen >= 5 && !memcmp(element, "$-1\r\n", 5)) {
                element = NULL;
            } else {
                size_t size = seen < 5 ? (size_t)seen : 5;
                int known = !memcmp(element, "$24\r\n", size) || !memcmp(element, "$-1\r\n", size);
                return known ? GOING : UNUSUAL;
            }
            s->at += element ? ROW : 5;
            if (last) {
                s->pointed = element ? 1 : 2;
                if (element) memcpy(s->pointer, element + 5, sizeof s->pointer);
                break;
            }
            j = lot->order ? (uint64_t)lot->order[s->row] : (uint64_t)s->row;
            if (j >= (uint64_t)lot->ids) return UNUSUAL;
            if (element) {
                verdict = judge(element + 5, load64((char *)lot->v[0].buf + 8 * j), lot->version);
                if (verdict < 0) s->corrupt++, verdict = MISS;
            }
            if (lot->index) j = (uint64_t)lot->index[j];
            if (j >= (uint64_t)lot->out) return UNUSUAL;
            if (verdict == HIT) {
                memcpy(codes + CODES_BYTES * j, element + 5, CODES_BYTES);
                memcpy(flags + 2 * j, element + 5 + CODES_BYTES, 2);
            } else {
                memset(codes + CODES_BYTES * j, 0xFF, CODES_BYTES);
                memset(flags + 2 * j, 0, 2);
            }
            status[j] = (uint8_t)verdict;
            s->left--;
            s->row++;
        }
    }
    return s->at == end ? DONE : UNUSUAL;
}

/* rows(*lot, buffer, end) -> result: GOING while bytes are missing, DONE, or UNUSUAL: then the
 * numpy reader must look at the reply. */
PyObject *scan_rows(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    struct lot lot;
    Py_buffer reply;
    if (nargs != LOT + 2) return PyErr_Format(PyExc_TypeError, "rows takes %d arguments", LOT + 2);
    Py_ssize_t end = PyLong_AsSsize_t(args[LOT + 1]);
    if (PyErr_Occurred() || open_lot(&lot, args) < 0) return NULL;
    if (acquire(args + LOT, &reply, 1, 1) < 0) {
        release(lot.v, VIEWS);
        return NULL;
    }
    struct state *s = lot.state;
    if (end < s->end || end > reply.len || s->at < 0 || s->at > s->end || s->row < 0) {
        release(&reply, 1);
        return too_small(lot.v, VIEWS);
    }
    s->end = end;
    s->result = decode(&lot, reply.buf);
    PyObject *result = PyLong_FromLongLong(s->result);
    release(&reply, 1);
    release(lot.v, VIEWS);
    return result;
}

/* An attribute by a name that is made once. */
PyObject *named(PyObject *of, enum name which) {
    static PyObject *names[NAMES];
    static const char *const texts[NAMES] = {"codes", "status", "flags", "version", "descriptor",
                                             "state", "buffer", "closed", "close", "give"};
    if (names[which] == NULL) names[which] = PyUnicode_InternFromString(texts[which]);
    if (of == NULL || names[which] == NULL) return Py_XNewRef(names[which]);
    return PyObject_GetAttr(of, names[which]);
}

static PyObject *array(PyObject *plan, int kind, Py_ssize_t rows, Py_ssize_t columns) {
    PyObject *shape = columns ? Py_BuildValue("(nn)", rows, columns) : PyLong_FromSsize_t(rows);
    if (shape == NULL) return NULL;
    PyObject *args[] = {shape, FIELD(plan, kind)};
    PyObject *made = PyObject_Vectorcall(FIELD(plan, EMPTY), args, 2, NULL);
    Py_DECREF(shape);
    return made;
}

/* codes, flags and status of n rows that have yet to be set, and a link's state and buffer. */
int parts_of(PyObject *plan, PyObject *link, Py_ssize_t n, PyObject **parts) {
    int missing = 0;
    parts[0] = array(plan, U16, n, CODES_BYTES / 2);
    parts[1] = array(plan, U16, n, 0);
    parts[2] = array(plan, U8, n, 0);
    parts[3] = named(link, STATE);
    parts[4] = named(link, BUFFER);
    for (int i = 0; i < 5; i++) missing |= parts[i] == NULL;
    for (int i = 0; missing && i < 5; i++) Py_CLEAR(parts[i]);
    return -missing;
}

/* A `Found` of the arrays: as its __init__ makes it. */
PyObject *found(PyObject *plan, PyObject *const *parts) {
    PyTypeObject *type = (PyTypeObject *)FIELD(plan, FOUND);
    PyObject *made = type->tp_alloc(type, 0);
    PyObject *const values[] = {parts[0], parts[2], parts[1], FIELD(plan, NAME)};
    for (int i = 0; made != NULL && i < 4; i++) {
        PyObject *name = named(NULL, (enum name)(CODES + i));
        if (name == NULL || PyObject_GenericSetAttr(made, name, values[i]) < 0) Py_CLEAR(made);
        Py_XDECREF(name);
    }
    return made;
}

/* Count a lookup of n ids, as Core.count_lookup does. */
void count(Py_buffer *shared, Py_ssize_t n, double seconds) {
    int64_t *counts = shared->buf, us = (int64_t)(seconds * 1e6);
    Py_ssize_t last = shared->len / 8 - 1, bucket = LATENCIES;
    for (int64_t rest = us; rest && bucket < last; rest >>= 1) bucket++;
    if (last < LATENCIES) return;
    counts[LOOKUPS]++, counts[IDS] += n, counts[MICROSECONDS] += us, counts[bucket]++;
}
