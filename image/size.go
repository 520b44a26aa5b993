package image

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
)

var (
	errNotSize   = errors.New("not a size")
	errSizeRange = errors.New("size out of range")
)

// parseSize reads a size in bytes: decimal digits, with a fraction if a suffix
// other than B follows, or hexadecimal after 0x; the suffixes are B, K, M, G, T, P and
// E in either case, powers of 1024. It is util/cutils.c's qemu_strtosz. oddity,
// if not "", is to be warned of.
func parseSize(s string) (n uint64, oddity string, err error) {
	val, rest, hex, err := wholeNumber(s)
	if err != nil {
		return 0, "", err
	}
	var fraction uint64 // of 1, in 64 bits behind the point
	if strings.HasPrefix(rest, ".") {
		if hex {
			return 0, "", errNotSize
		}
		if fraction, rest, err = fractionDigits(rest); err != nil {
			return 0, "", err
		}
	}
	shift, rest, suffixed := sizeSuffix(rest)
	if suffixed && hex {
		oddity = "Using a multiplier suffix on hex numbers is deprecated: " + s
	}
	n, err = scaleSize(val, fraction, shift)
	if rest != "" {
		err = errNotSize
	}
	return n, oddity, err
}

// wholeNumber reads the number that s begins with.
func wholeNumber(s string) (val uint64, rest string, hex bool, err error) {
	digits := strings.TrimPrefix(strings.TrimLeft(s, " \t\n\v\f\r"), "+")
	end := 0
	for end < len(digits) && digits[end] >= '0' && digits[end] <= '9' {
		end++
	}
	if end == 0 {
		return 0, "", false, errNotSize
	}
	whole, rest, base := digits[:end], digits[end:], 10
	if strings.Trim(whole, "0") == "" && rest != "" && (rest[0] == 'x' || rest[0] == 'X') {
		if whole, rest, err = hexDigits(digits); err != nil {
			return 0, "", false, err
		}
		base = 16
	}
	val, err = strconv.ParseUint(whole, base, 64)
	if err != nil && rest != "" {
		return 0, "", false, errNotSize
	}
	if err != nil {
		return 0, "", false, errSizeRange
	}
	return val, rest, base == 16, nil
}

func hexDigits(digits string) (whole, rest string, err error) {
	at := strings.IndexAny(digits, "xX") + 1
	end := at
	for end < len(digits) && strings.IndexByte("0123456789abcdefABCDEF", digits[end]) >= 0 {
		end++
	}
	if at != 2 || end == at {
		return "", "", errNotSize
	}
	return digits[at:end], digits[end:], nil
}

func fractionDigits(s string) (fraction uint64, rest string, err error) {
	end := 1
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	rest = s[end:]
	if end == 1 {
		return 0, rest, nil // "1.k"
	}
	if exponent(rest) {
		return 0, "", errNotSize
	}
	f, err := strconv.ParseFloat("0"+s[:end], 64)
	if err != nil {
		return 0, "", errNotSize
	}
	scaled, _ := new(big.Float).SetMantExp(big.NewFloat(f), 64).Int(nil)
	if !scaled.IsUint64() {
		return math.MaxUint64, rest, nil
	}
	return scaled.Uint64(), rest, nil
}

// exponent tells whether s begins with one, as strtod reads it.
func exponent(s string) bool {
	if s == "" || s[0] != 'e' && s[0] != 'E' {
		return false
	}
	s = s[1:]
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	return s != "" && s[0] >= '0' && s[0] <= '9'
}

func sizeSuffix(s string) (shift uint, rest string, ok bool) {
	if s == "" {
		return 0, s, false
	}
	i := strings.IndexByte("BKMGTPE", s[0]&^0x20)
	if i < 0 {
		return 0, s, false
	}
	return uint(i) * 10, s[1:], true
}

func scaleSize(val, fraction uint64, shift uint) (uint64, error) {
	if shift == 0 {
		if fraction != 0 {
			return 0, errNotSize
		}
		return val, nil
	}
	high, low := bits.Mul64(val, 1<<shift)
	whole, part := bits.Mul64(fraction, 1<<shift)
	low, carry := bits.Add64(low, whole, 0)
	high += carry
	low, carry = bits.Add64(low, part>>63, 0)
	high += carry
	if high != 0 {
		return 0, errSizeRange
	}
	return low, nil
}

// number reads a size given to an option or as an operand, called what, from low to high.
func (c *call) number(what, value string, low, high int64) (int64, error) {
	n, oddity, err := parseSize(value)
	if oddity != "" {
		c.warn("%s", oddity)
	}
	if errors.Is(err, errNotSize) {
		c.report("Invalid %s specified. You may use k, M, G, T, P or E suffixes for", what)
		c.report("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.")
		return 0, failed
	}
	if err != nil || n > uint64(high) || n < uint64(low) {
		return 0, failure("Invalid %s specified. Must be between %d and %d.", what, low, high)
	}
	return int64(n), nil
}

// size is number without limits but those of a size.
func (c *call) size(what, value string) (int64, error) {
	return c.number(what, value, 0, math.MaxInt64)
}

// sizeText is a size as people are told it: three digits and a binary unit.
func sizeText(n int64) string {
	suffixes := [...]string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}
	_, exp := math.Frexp(float64(uint64(n)) / (1000.0 / 1024.0))
	i := max((exp-1)/10, 0)
	return fmt.Sprintf("%s %sB", sig3(float64(uint64(n))/math.Pow(1024, float64(i))), suffixes[i])
}

// sig3 is C's %0.3g for what sizeText has to say.
func sig3(f float64) string { return strconv.FormatFloat(f, 'g', 3, 64) }
