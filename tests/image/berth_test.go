package image

import (
	"errors"
	"fmt"
)

// berth is what is tested.
type berth struct{}

var errNoEngine = fmt.Errorf("the image commands: %w", errors.ErrUnsupported)

func (berth) name() string                              { return "berth" }
func (berth) img([]string) (int, string)                { return 1, errNoEngine.Error() }
func (berth) io(_, _, _ string, _ task) ([]bool, error) { return nil, errNoEngine }
func (berth) read(_, _, _ string) ([]byte, error)       { return nil, errNoEngine }
func (berth) bitmaps(string) (string, error)            { return "", errNoEngine }
func (berth) dirty(string, string) (string, error)      { return "", errNoEngine }
