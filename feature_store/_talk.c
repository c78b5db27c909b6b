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
