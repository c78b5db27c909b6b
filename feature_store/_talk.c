/* Sends MGETs and decodes what comes back, without Python in between.
 *
 * In: sockets, commands, and a lot for each (see _rows.c). Out: the answer's rows; each lot's state
 * says what became of it. Nothing here knows what the bytes mean.
 */
#define _GNU_SOURCE
#include "_fast.h"
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#define SLACK 64 /* wire.SLACK */

struct job {
    struct lot lot;
    Py_buffer payload, buffer;
    Py_ssize_t sent;
    int descriptor;
};

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

static int wait_for(struct pollfd *polled, nfds_t count, double seconds) {
#ifdef __linux__
    struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    return ppoll(polled, count, &left, NULL);
#else
    return poll(polled, count, (int)(seconds * 1e3 + 0.999));
#endif
}

static void finish(struct job *job, int64_t result, int error) {
    job->lot.state->result = result;
    job->lot.state->error = error;
}

static int passing(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

static void push(struct job *job) {
    const char *from = (const char *)job->payload.buf + job->sent;
    size_t left = (size_t)(job->payload.len - job->sent);
    ssize_t count = send(job->descriptor, from, left, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0) job->sent += count;
    else if (!passing(errno)) finish(job, FAILED, errno);
}

/* Send, unless something came before anything was asked: it would pass for the reply. */
static void begin(struct job *job) {
    char byte;
    ssize_t count = recv(job->descriptor, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (count >= 0) finish(job, count ? SURPLUS : CLOSED, 0);
    else if (passing(errno)) push(job);
    else finish(job, FAILED, errno);
}

static void pull(struct job *job) {
    struct state *s = job->lot.state;
    Py_ssize_t room = job->buffer.len - SLACK - (Py_ssize_t)s->end;
    if (room <= 0) {
        finish(job, UNUSUAL, 0); /* longer than any usual reply */
        return;
    }
    uint8_t *reply = job->buffer.buf;
    ssize_t count = recv(job->descriptor, reply + s->end, (size_t)room, MSG_DONTWAIT);
    if (count > 0) {
        s->end += count;
        s->result = decode(&job->lot, reply);
    } else if (count == 0) {
        finish(job, CLOSED, 0);
    } else if (!passing(errno)) {
        finish(job, FAILED, errno);
    }
}

/* Until all jobs have a result. 0, or -1 when a signal's handler raised. */
static int converse(struct job *jobs, struct pollfd *polled, Py_ssize_t count, double deadline) {
    PyThreadState *thread = PyEval_SaveThread();
    int raised = 0;
    double left = deadline - now();
    if (left < 1e-4) left = 1e-4; /* what is there already is read */
    for (Py_ssize_t i = 0; i < count; i++) begin(&jobs[i]);
    for (int last = 0; !last && !raised; left = deadline - now()) {
        nfds_t open = 0;
        for (Py_ssize_t i = 0; i < count; i++) {
            polled[i].fd = -1;
            if (jobs[i].lot.state->result != GOING) continue;
            polled[i].fd = jobs[i].descriptor;
            polled[i].events = POLLIN | (jobs[i].sent < jobs[i].payload.len ? POLLOUT : 0);
            open++;
        }
        if (!open) break;
        last = left <= 0;
        int ready = wait_for(polled, (nfds_t)count, last ? 0 : left);
        if (ready < 0 && errno != EINTR) {
            int error = errno;
            for (Py_ssize_t i = 0; i < count; i++)
                if (polled[i].fd >= 0) finish(&jobs[i], FAILED, error);
            break;
        }
        if (ready < 0) {
            PyEval_RestoreThread(thread);
            raised = PyErr_CheckSignals();
            thread = PyEval_SaveThread();
        }
        for (Py_ssize_t i = 0; i < count && ready > 0; i++) {
            if (polled[i].fd < 0) continue;
            if (polled[i].revents & POLLOUT && jobs[i].sent < jobs[i].payload.len) push(&jobs[i]);
            if (polled[i].revents & ~POLLOUT && jobs[i].lot.state->result == GOING) pull(&jobs[i]);
        }
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (jobs[i].lot.state->result == GOING) finish(&jobs[i], LATE, 0);
    PyEval_RestoreThread(thread);
    return raised;
}

static int open_job(struct job *job, PyObject *item) {
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 3 + LOT) {
        PyErr_SetString(PyExc_TypeError, "a job is (descriptor, payload, buffer, *lot)");
        return -1;
    }
    PyObject *const *args = &PyTuple_GET_ITEM(item, 0);
    job->descriptor = (int)PyLong_AsLong(args[0]);
    job->sent = 0;
    if (PyErr_Occurred() || open_lot(&job->lot, args + 3) < 0) return -1;
    if (PyObject_GetBuffer(args[1], &job->payload, PyBUF_SIMPLE) < 0) goto lot;
    if (PyObject_GetBuffer(args[2], &job->buffer, PyBUF_WRITABLE) < 0) goto payload;
    memset(job->lot.state, 0, sizeof(struct state));
    return 0;
payload:
    PyBuffer_Release(&job->payload);
lot:
    release(job->lot.v, VIEWS);
    return -1;
}

/* talk(jobs, deadline) -> how many are not DONE: send every job's payload, then receive and decode
 * until all have a result or the deadline (time.monotonic seconds) has passed. No TLS. */
PyObject *talk(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2 || !PyList_Check(args[0]))
        return PyErr_Format(PyExc_TypeError, "talk takes a list of jobs and a deadline");
    double deadline = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred()) return NULL;
    Py_ssize_t count = PyList_GET_SIZE(args[0]), opened = 0;
    struct job one, *jobs = &one;
    struct pollfd first, *polled = &first;
    if (count > 1) {
        jobs = PyMem_Malloc((size_t)count * (sizeof *jobs + sizeof *polled));
        if (jobs == NULL) return PyErr_NoMemory();
        polled = (struct pollfd *)(jobs + count);
    }
    int wrong = 0;
    while (opened < count && !wrong) {
        wrong = open_job(&jobs[opened], PyList_GET_ITEM(args[0], opened));
        opened += !wrong;
    }
    if (!wrong) wrong = converse(jobs, polled, count, deadline);
    Py_ssize_t others = 0;
    for (Py_ssize_t i = 0; i < opened; i++) {
        others += jobs[i].lot.state->result != DONE;
        PyBuffer_Release(&jobs[i].payload);
        PyBuffer_Release(&jobs[i].buffer);
        release(jobs[i].lot.v, VIEWS);
    }
    if (count > 1) PyMem_Free(jobs);
    return wrong ? NULL : PyLong_FromSsize_t(others);
}

/* Seconds that a lookup of n ids may take; 0 for what is no usual deadline. */
static double patience(PyObject *plan, PyObject *deadline, Py_ssize_t n) {
    double seconds = 0, least = PyFloat_AsDouble(FIELD(plan, LEAST_S));
    if (deadline == Py_None) {
        seconds = PyFloat_AsDouble(FIELD(plan, ROW_S)) * (double)n;
        return seconds > least ? seconds : least;
    }
    if (PyFloat_CheckExact(deadline) || PyLong_CheckExact(deadline))
        seconds = PyFloat_AsDouble(deadline);
    if (PyErr_Occurred()) PyErr_Clear(); /* an integer beyond all floats */
    return seconds > 0 && seconds <= PyFloat_AsDouble(FIELD(plan, LONGEST_S)) ? seconds : 0;
}

/* The exchange of `ask`. v: ids, prefix, tags, tail, counts, codes, flags, status, state, buffer.
 * None where all is plain: every row is in its place, none is corrupt, and the pointer reads as the
 * plan says; else what was sent. */
static PyObject *over(PyObject *plan, const Py_buffer *v, int descriptor, double deadline) {
    PyObject *pointer = FIELD(plan, POINTER);
    Py_buffer none, groups;
    memset(&none, 0, sizeof none);
    Py_ssize_t keys = PyLong_AsSsize_t(FIELD(plan, KEYS));
    unsigned version = (unsigned)PyLong_AsLong(FIELD(plan, NUMBER));
    if (PyErr_Occurred() || in_groups(&groups, v[0].len / 8, keys) < 0) return NULL;
    struct request request = {.v = {v[0], none, groups, v[1], v[2], v[3]}};
    struct job job = {.lot = {.v = {v[0], none, groups, none, v[5], v[6], v[7], v[8]}},
                      .buffer = v[9], .descriptor = descriptor};
    struct pollfd polled;
    PyObject *out = check_lot(&job.lot) < 0 ? NULL : mgets(&request);
    if (out != NULL) {
        struct state *s = job.lot.state;
        memset(s, 0, sizeof *s);
        job.lot.version = version;
        job.payload.buf = PyBytes_AS_STRING(out);
        job.payload.len = PyBytes_GET_SIZE(out);
        if (converse(&job, &polled, 1, deadline) < 0) {
            Py_CLEAR(out);
        } else if (s->result == DONE) {
            int same = s->pointed == 1 && PyBytes_GET_SIZE(pointer) == sizeof s->pointer &&
                       !memcmp(s->pointer, PyBytes_AS_STRING(pointer), sizeof s->pointer);
            if (same && !s->corrupt) Py_SETREF(out, Py_NewRef(Py_None));
            else s->result = UNUSUAL;
        }
    }
    PyMem_Free(groups.buf);
    return out;
}

static PyObject *call(PyObject *of, enum name which, PyObject *with) {
    PyObject *name = named(NULL, which);
    if (name == NULL) return NULL;
    PyObject *result = PyObject_CallMethodObjArgs(of, name, with, NULL);
    Py_DECREF(name);
    return result;
}

/* Give a link back to its list, or close it; 0, or -1 with an error set. */
static int end_with(PyObject *plan, PyObject *link, int whole, int failed) {
    PyObject *type, *value, *trace, *done = NULL, *idle = FIELD(plan, IDLE);
    if (failed) { /* an interrupt leaves an answer on its way */
        PyErr_Fetch(&type, &value, &trace);
        done = call(link, CLOSE, NULL);
        Py_XDECREF(done);
        PyErr_Restore(type, value, trace);
        return 0;
    }
    if (!whole) return 0;
    PyObject *closed = named(FIELD(plan, LINKS), IS_CLOSED);
    int simple = closed == Py_False && PyList_GET_SIZE(idle) == 0;
    Py_XDECREF(closed);
    if (simple) return PyList_Append(idle, link);
    done = call(FIELD(plan, LINKS), GIVE, link);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* ask(plan, ids, deadline) -> Found; (link, sent, began) where the common way must go on with what
 * came, of which the link's state tells; None, nothing sent, where something is not plain. */
PyObject *ask(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3 || !PyTuple_Check(args[0]) || PyTuple_GET_SIZE(args[0]) != PLAN ||
        !PyList_Check(FIELD(args[0], IDLE)) || !PyBytes_Check(FIELD(args[0], POINTER)) ||
        !PyType_Check(FIELD(args[0], FOUND)))
        return PyErr_Format(PyExc_TypeError, "ask takes a plan, ids and a deadline");
    PyObject *plan = args[0], *idle = FIELD(plan, IDLE), *sent = NULL, *out = NULL;
    double began = now();
    Py_buffer v[10];
    if ((PyObject *)Py_TYPE(args[1]) != FIELD(plan, NDARRAY)) Py_RETURN_NONE;
    if (PyObject_GetBuffer(args[1], v, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    Py_ssize_t n = v[0].len / 8, last = PyList_GET_SIZE(idle) - 1;
    double seconds = patience(plan, args[2], n);
    if (last < 0 || seconds <= 0 || !plain(v)) {
        release(v, 1);
        Py_RETURN_NONE;
    }
    PyObject *link = Py_NewRef(PyList_GET_ITEM(idle, last));
    PyObject *parts[5];
    if (PyList_SetSlice(idle, last, last + 1, NULL) == 0 && parts_of(plan, link, n, parts) == 0) {
        PyObject *number = named(link, DESCRIPTOR);
        int descriptor = number == NULL ? -1 : (int)PyLong_AsLong(number);
        Py_XDECREF(number);
        if (!PyErr_Occurred() && acquire(&FIELD(plan, PREFIX_OF), v + 1, 4, COUNTS) == 0) {
            if (acquire(parts, v + 5, 5, 0) == 0) {
                sent = over(plan, v, descriptor, began + seconds);
                if (sent == Py_None) count(&v[4], n, now() - began);
                release(v + 5, 5);
            }
            release(v + 1, 4);
        }
        if (sent == Py_None) out = found(plan, parts);
        for (int i = 0; i < 5; i++) Py_DECREF(parts[i]);
    }
    release(v, 1);
    if (sent != NULL && sent != Py_None) out = Py_BuildValue("OOd", link, sent, began);
    if (end_with(plan, link, sent == Py_None, out == NULL) < 0) Py_CLEAR(out);
    Py_XDECREF(sent);
    Py_DECREF(link);
    return out;
}
