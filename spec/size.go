package spec

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

const suffixes = "KMGTP"

// Size is a number of bytes. As text it has a unit.
type Size uint64

// MarshalText writes the size with its unit.
func (s Size) MarshalText() ([]byte, error) { return []byte(FormatSize(uint64(s))), nil }

// UnmarshalText reads a size as ParseSize does.
func (s *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	*s = Size(v)
	return err
}

// String returns the size with its unit.
func (s Size) String() string { return FormatSize(uint64(s)) }

// ParseSize reads a number of bytes with an optional suffix K, M, G, T or P
// (powers of 1024; "iB" or "B" may follow); without one the number is in MiB,
// as for QEMU's -m.
func ParseSize(s string) (uint64, error) {
	digits, shift := strings.ToUpper(strings.TrimSpace(s)), 20
	if t := strings.TrimSuffix(strings.TrimSuffix(digits, "B"), "I"); t != "" {
		if i := strings.IndexByte(suffixes, t[len(t)-1]); i >= 0 {
			digits, shift = t[:len(t)-1], 10*(i+1)
		}
	}
	if strings.HasPrefix(digits, "-") {
		return 0, fmt.Errorf("size %q is negative", s)
	}
	v, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("size %q is not a number with a suffix K, M, G, T or P", s)
	}
	if v != 0 && bits.Len64(v)+shift > 64 {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	return v << shift, nil
}

// parseAmount reads a number, not negative, that may have a suffix as ParseSize's;
// without one it is what it says.
func parseAmount(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	n, err := ParseSize(s)
	if t := strings.TrimSpace(s); err != nil || t == "" || t[len(t)-1] >= '0' && t[len(t)-1] <= '9' || n > 1<<63-1 {
		return 0, fmt.Errorf("%q is not a number, with or without a suffix K, M, G, T or P", s)
	}
	return int64(n), nil
}

// FormatSize writes n bytes with the largest suffix that loses nothing.
func FormatSize(n uint64) string {
	for i := len(suffixes) - 1; i >= 0; i-- {
		if unit := uint64(1) << (10 * (i + 1)); n >= unit && n%unit == 0 {
			return strconv.FormatUint(n/unit, 10) + suffixes[i:i+1]
		}
	}
	return strconv.FormatUint(n, 10) + "B"
}
