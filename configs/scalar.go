package configs

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// setScalar sets v to what the text says; files and the environment both come through here. v is of a type that a
// field of a document has.
func setScalar(v reflect.Value, text string) fault {
	var f fault
	switch target := v.Addr().Interface().(type) {
	case *string:
		*target = text
	case *Address:
		*target = Address(text)
	case *time.Duration:
		*target, f = parseDuration(text)
	case *Bytes:
		*target, f = parseBytes(text)
	case *int:
		number, err := strconv.Atoi(text)
		*target, f = number, numberFault(text, "whole number", "8", err)
	case *uint64:
		number, err := strconv.ParseUint(text, 10, 64)
		*target, f = number, numberFault(text, "whole number from 0 up", "8", err)
	case *float64:
		number, err := strconv.ParseFloat(text, 64)
		*target, f = number, numberFault(text, "number", "0.5", err)
	case *bool:
		*target = text == "true"
		if text != "true" && text != "false" {
			f = faultf("write true or false", "%q is neither true nor false", text)
		}
	default:
		panic(fmt.Sprintf("configs: no way to read a %s", v.Type()))
	}
	return f
}

func numberFault(text, want, example string, err error) fault {
	switch {
	case err == nil:
		return fault{}
	case errors.Is(err, strconv.ErrRange):
		return faultf("write a smaller one", "%q does not fit into 64 bits", text)
	}
	return faultf("write for example "+example, "%q is not a %s", text, want)
}

// exampleOf returns a value of the type for a remedy.
func exampleOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Address]():
		return "an address, for example 127.0.0.1:8001"
	case reflect.TypeFor[time.Duration]():
		return "a duration, for example 500ms"
	case reflect.TypeFor[Bytes]():
		return "a size, for example 16MiB"
	case reflect.TypeFor[bool]():
		return "true or false"
	case reflect.TypeFor[string]():
		return "a word"
	}
	return "a number"
}
