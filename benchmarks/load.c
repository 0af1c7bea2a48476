/* Load on a port of the loopback address, a connection for each request; the program that load.py compiles.

   load PORT SECONDS RATE CONNECTIONS GIVE_UP PROBES REQUEST PROBE

   With RATE, open loop: so many requests a second, whatever becomes of them. Without, closed loop: so many
   CONNECTIONS at a time. A client gives up after GIVE_UP seconds. PROBE is sent PROBES times a second beside
   it. `{id}` in REQUEST becomes a number from 1 to 1000. Prints JSON; client.py does the same, more slowly. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 16000, ANSWERS = 4000000, STATUS = 12 };
typedef struct { double begun; int fd, is_probe, is_sent, length; char status[STATUS + 1]; } Client;

static Client clients[MOST];
static int idle[MOST], idle_count, in_flight, poll_fd;
static double answers[ANSWERS];
static int ok, in_time, refused, given_up, failed, probes, probes_in_time;
static struct sockaddr_in address;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void begin(int is_probe) {
  int fd = idle_count ? socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0) : -1;
  if (fd < 0) { failed += !is_probe; probes += is_probe; return; }
  int number = idle[--idle_count];
  clients[number] = (Client){ .begun = now(), .fd = fd, .is_probe = is_probe };
  in_flight++;
  connect(fd, (struct sockaddr *)&address, sizeof address);
  struct epoll_event event = { EPOLLOUT, { .u32 = number } };
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void end(int number, int has_given_up) {
  Client *c = &clients[number];
  double took = now() - c->begun;
  int status = c->length == STATUS ? atoi(c->status + 9) : 0, is_ok = !has_given_up && status / 100 == 2;
  close(c->fd);
  c->fd = -1;
  idle[idle_count++] = number;
  in_flight--;
  if (c->is_probe) { probes++; probes_in_time += is_ok && took < 1; }
  else if (has_given_up) given_up++;
  else if (status == 503) refused++;
  else if (!is_ok) failed++;
  else { if (ok < ANSWERS) answers[ok] = took; ok++; in_time += took < 1; }
}

static int send_request(const Client *c, const char *request) {
  char text[4096];
  const char *id = c->is_probe ? NULL : strstr(request, "{id}");
  int length = id ? snprintf(text, sizeof text, "%.*s%d%s", (int)(id - request), request, 1 + rand() % 1000, id + 4)
                  : snprintf(text, sizeof text, "%s", request);
  return write(c->fd, text, length) == length;
}

static void proceed(int number, const char *request) {
  static char data[65536];
  Client *c = &clients[number];
  if (!c->is_sent) {
    if (!send_request(c, request)) { end(number, 0); return; }
    c->is_sent = 1;
    struct epoll_event event = { EPOLLIN, { .u32 = number } };
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &event);
    return;
  }
  ssize_t length;
  while ((length = read(c->fd, data, sizeof data)) > 0)
    for (int i = 0; i < length && c->length < STATUS; i++) c->status[c->length++] = data[i];
  if (length == 0 || errno != EAGAIN) end(number, 0);
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int count, char **arguments) {
  if (count != 9) return 64;
  double seconds = atof(arguments[2]), rate = atof(arguments[3]), give_up = atof(arguments[5]), per_second = atof(arguments[6]);
  int connections = atoi(arguments[4]);
  struct rlimit files = { 0 };
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  address.sin_family = AF_INET;
  address.sin_port = htons(atoi(arguments[1]));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  poll_fd = epoll_create1(0);
  for (int i = 0; i < MOST; i++) { clients[i].fd = -1; idle[idle_count++] = i; }
  double begun = now(), last = begun, swept = begun, next_probe = begun, due = 0;
  for (;;) {
    double time = now();
    if (time - begun < seconds) {
      due += (time - last) * rate;
      for (; due >= 1; due--) begin(0);
      for (int i = rate ? connections : in_flight; i < connections; i++) begin(0);
      for (; per_second && time >= next_probe; next_probe += 1 / per_second) begin(1);
    } else if (!in_flight || !rate) break;
    last = time;
    static struct epoll_event events[1024];
    int ready = epoll_wait(poll_fd, events, 1024, 2);
    for (int i = 0; i < ready; i++)
      proceed(events[i].data.u32, arguments[clients[events[i].data.u32].is_probe ? 8 : 7]);
    if (time - swept > 0.05) {
      swept = time;
      for (int i = 0; i < MOST; i++)
        if (clients[i].fd >= 0 && time - clients[i].begun > give_up) end(i, 1);
    }
  }
  int kept = ok < ANSWERS ? ok : ANSWERS;
  qsort(answers, kept, sizeof *answers, compare);
  printf("{\"ok\": %d, \"in_time\": %d, \"refused\": %d, \"given_up\": %d, \"failed\": %d, \"p50\": %.4f, \"p99\": %.4f, "
         "\"probes\": %d, \"probes_in_time\": %d}\n", ok, in_time, refused, given_up, failed,
         kept ? answers[kept / 2] : 0, kept ? answers[kept * 99L / 100] : 0, probes, probes_in_time);
}
