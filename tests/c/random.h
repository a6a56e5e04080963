/* Random choices that a seed makes again. */
#ifndef RANDOM_H
#define RANDOM_H

#include "check.h"

static uint64_t random_state;
static uint64_t random_seed = 1;
static long random_sequences;

/* A number below another one. */
static inline uint32_t
any(uint32_t below)
{
	/* xorshift64* of Vigna. */
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)((random_state * 0x2545f4914f6cdd1dULL) >> 33) % below;
}

/* The arguments of the program: a seed, and how many sequences. */
static inline void
take_seed(int argc, char **argv, long sequences)
{
	random_sequences = sequences;
	if (argc > 1)
		random_seed = strtoull(argv[1], NULL, 10);
	if (argc > 2)
		random_sequences = strtol(argv[2], NULL, 10);
}

/* Runs that many, until one fails, and says which. */
static inline void
run_sequences(void (*sequence)(void), const char *program)
{
	long i;

	for (i = 0; i < random_sequences && check_failures == 0; i++) {
		unsigned long long seed = random_seed + (uint64_t)i;

		random_state = seed * 0x9e3779b97f4a7c15ULL + 1;
		sequence();
		if (check_failures != 0)
			fprintf(stderr, "shown again by: %s %llu 1\n", program, seed);
	}
}

#endif
