package x86

// Level is how much of the architecture a CPU model has: the levels that the
// x86-64 psABI names.
type Level uint8

// The levels.
const (
	LevelV1 Level = iota + 1 // SSE2
	LevelV2                  // SSE4.2, POPCNT, CMPXCHG16B
	LevelV3                  // AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE
)
