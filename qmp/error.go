package qmp

import "errors"

// Classes of errors.
const (
	GenericError    = "GenericError"
	CommandNotFound = "CommandNotFound"
	DeviceNotActive = "DeviceNotActive"
	DeviceNotFound  = "DeviceNotFound"
	KVMMissingCap   = "KVMMissingCap"
)

// Error is a command's error with a class of its own. Every other error that a
// command returns is a GenericError.
type Error struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

// Error is the description alone, as people are shown it.
func (e *Error) Error() string { return e.Desc }

// asError gives err its class.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{e.Class, err.Error()}
	}
	return &Error{GenericError, err.Error()}
}
