/* What the host itself can do: a thread of its own sleeps until a deadline, alone and with as many threads spinning in
 * the same process as the argument says. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

enum { SAMPLES = 1000 };

static void *spin(void *arg)
{
	for (uint32_t x = 1;; x = x * 5 + 1)
		__asm__ volatile("" : "+r"(x));
	return arg;
}

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void row(const char *name)
{
	static int64_t late[SAMPLES];
	for (int i = 0; i < SAMPLES; i++) {
		int64_t due = now() + 500000 + random() % 1000000;
		struct timespec t = { due / 1000000000, due % 1000000000 };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
		late[i] = now() - due;
	}
	printf("row %s\n", name);
	for (int i = 0; i < SAMPLES; i++)
		printf("%lld\n", (long long)late[i]);
}

int main(int argc, char **argv)
{
	prctl(PR_SET_TIMERSLACK, 1);
	row("clock_nanosleep; others halted");
	for (int i = argc > 1 ? atoi(argv[1]) : 0; i > 0; i--) {
		pthread_t t;
		if (pthread_create(&t, NULL, spin, NULL))
			return 2;
	}
	row("clock_nanosleep; others spin");
	puts("done");
	return 0;
}
