/* Writes a word at the start of a file through io_uring, by the bare system calls: io_uring MODE FILE, where MODE is
 * inline, async (a kernel worker does it) or sqpoll (a kernel thread takes it without a call). Says done, then waits. */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return 1;
}

int main(int count, char **arguments)
{
	if (count != 3)
		return 64;
	int async = strcmp(arguments[1], "async") == 0;
	int polled = strcmp(arguments[1], "sqpoll") == 0;
	struct io_uring_params params = {0};
	if (polled) {
		params.flags = IORING_SETUP_SQPOLL;
		params.sq_thread_idle = 100;
	}
	int ring = (int)syscall(SYS_io_uring_setup, 4, &params);
	if (ring < 0)
		return fail("io_uring_setup");
	size_t queue = params.sq_off.array + params.sq_entries * sizeof(unsigned);
	size_t done = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
	char *sq = mmap(0, queue, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
	char *cq = mmap(0, done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
	struct io_uring_sqe *sqes = mmap(0, params.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || sqes == MAP_FAILED)
		return fail("mmap");
	int file = open(arguments[2], O_WRONLY);
	if (file < 0)
		return fail(arguments[2]);

	static const char word[] = "written through a ring";
	memset(&sqes[0], 0, sizeof sqes[0]);
	sqes[0].opcode = IORING_OP_WRITE;
	sqes[0].flags = async ? IOSQE_ASYNC : 0;
	sqes[0].fd = file;
	sqes[0].addr = (unsigned long)word;
	sqes[0].len = sizeof word - 1;
	((unsigned *)(sq + params.sq_off.array))[0] = 0;
	atomic_fetch_add((_Atomic unsigned *)(sq + params.sq_off.tail), 1);
	unsigned flags = IORING_ENTER_GETEVENTS | (polled ? IORING_ENTER_SQ_WAKEUP : 0);
	if (syscall(SYS_io_uring_enter, ring, polled ? 0 : 1, 1, flags, 0, 0) < 0)
		return fail("io_uring_enter");
	struct io_uring_cqe *answer = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
	if (answer->res != (int)sizeof word - 1) {
		errno = -answer->res;
		return fail("the write");
	}
	close(file);
	puts("done");
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
