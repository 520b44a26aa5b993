#include "suite.h"
void test_legacy(void)
{
}
