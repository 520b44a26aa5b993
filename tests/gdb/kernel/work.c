/* What is debugged: turn after turn, a sum. */
struct point {
	int x, y;
} at = {3, 4};
volatile int turns, total;

__attribute__((noinline)) int add(int n)
{
	total += n;
	return total;
}

void work(void)
{
	for (;;) {
		turns++;
		at.x = add(turns);
		at.y = at.x - 1;
	}
}
