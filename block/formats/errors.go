package formats

import (
	"errors"
	"fmt"
	"syscall"

	"berth/block"
	"berth/block/raw"
)

// hinted is an error with a line of advice to print under it.
type hinted struct {
	text, hint string
	err        error
}

func (e *hinted) Error() string { return e.text }

// Hint returns the lines to print under the message.
func (e *hinted) Hint() string { return e.hint }

// Unwrap says what kind of error it is.
func (e *hinted) Unwrap() error { return e.err }

// wordedError is an error of the system with words before C's own.
type wordedError struct {
	what string
	err  error
}

func (e *wordedError) Error() string { return e.what + ": " + Reason(e.err) }

// Unwrap says what kind of error it is.
func (e *wordedError) Unwrap() error { return e.err }

// Reason is what C calls the system's error within err; the text of err if
// there is none.
func Reason(err error) string {
	var n syscall.Errno
	switch {
	case errors.As(err, &n):
	case errors.Is(err, block.ErrUnsupported):
		n = syscall.ENOTSUP
	case errors.Is(err, block.ErrReadOnly):
		n = syscall.EACCES
	default:
		return err.Error()
	}
	text := n.Error()
	if text[0] >= 'a' && text[0] <= 'z' {
		text = string(text[0]-'a'+'A') + text[1:]
	}
	return text
}

// openError words the failure to open the file at path.
func openError(path string, err error) error {
	return &wordedError{fmt.Sprintf("Could not open '%s'", path), err}
}

// lockError words the failure to lock it.
func lockError(path string, err error) error {
	var l *raw.LockError
	if !errors.As(err, &l) {
		return err
	}
	shared := ""
	if l.Shared {
		shared = "shared "
	}
	return &hinted{
		text: fmt.Sprintf("Failed to get %s\"%s\" lock", shared, l.Perm),
		hint: fmt.Sprintf("Is another process using the image [%s]?\n", path),
		err:  err,
	}
}
