package oip

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/orrery-project/orrery/proto/inferencepb"
)

// The request parameters that have a meaning here or in the protocol.
const (
	timeoutParameter    = "timeout"
	priorityParameter   = "priority"
	emptyFinalParameter = "triton_enable_empty_final_response"
	tritonPrefix        = "triton_"
	sequencePrefix      = "sequence_"
	sharedMemoryPrefix  = "shared_memory_"
	classification      = "classification"
)

// Timeout is how long the sender allows for the answer, from its parameter
// "timeout", an int64 of microseconds. It is not ok when there is none, or 0.
// The error is an *InvalidError.
func Timeout(req *inferencepb.ModelInferRequest) (d time.Duration, ok bool, err error) {
	p, given := req.Parameters[timeoutParameter]
	if !given {
		return 0, false, nil
	}
	choice, isInt64 := p.GetParameterChoice().(*inferencepb.InferParameter_Int64Param)
	if !isInt64 {
		return 0, false, invalid("parameter %q is %s; give the microseconds until the answer is due, as an int64",
			timeoutParameter, describe(p))
	}
	microseconds := choice.Int64Param
	if microseconds < 0 {
		return 0, false, invalid("parameter %q is %d; give the microseconds until the answer is due, or 0 for no timeout",
			timeoutParameter, microseconds)
	}
	// What a Duration can't hold is 292 years anyway.
	microseconds = min(microseconds, math.MaxInt64/int64(time.Microsecond))
	return time.Duration(microseconds) * time.Microsecond, microseconds > 0, nil
}

// Priority is the parameter "priority", an int64 from 0 or a uint64: 1 is the
// highest, 0 the default. The error is an *InvalidError.
func Priority(req *inferencepb.ModelInferRequest) (uint64, error) {
	p, given := req.Parameters[priorityParameter]
	if !given {
		return 0, nil
	}
	switch choice := p.GetParameterChoice().(type) {
	case *inferencepb.InferParameter_Uint64Param:
		return choice.Uint64Param, nil
	case *inferencepb.InferParameter_Int64Param:
		if choice.Int64Param >= 0 {
			return uint64(choice.Int64Param), nil
		}
	}
	return 0, invalid("parameter %q is %s; give an int64 or a uint64, 1 for the highest, 0 for the default",
		priorityParameter, describe(p))
}

// CustomParameters are the request's parameters that the protocol gives no
// meaning to, as text. It is nil when there are none.
func CustomParameters(req *inferencepb.ModelInferRequest) map[string]string {
	var custom map[string]string
	for key, p := range req.Parameters {
		if reserved(key) {
			continue
		}
		if custom == nil {
			custom = make(map[string]string, len(req.Parameters))
		}
		custom[key] = text(p)
	}
	return custom
}

func reserved(key string) bool {
	switch key {
	case timeoutParameter, priorityParameter, "headers", "binary_data_output":
		return true
	default:
		return strings.HasPrefix(key, sequencePrefix) || strings.HasPrefix(key, tritonPrefix)
	}
}

// malformedParameters finds a parameter of the request or of its tensors that
// can't be honoured.
func malformedParameters(req *inferencepb.ModelInferRequest) error {
	key, found := least(req.Parameters, func(key string) bool {
		return strings.HasPrefix(key, tritonPrefix) && key != emptyFinalParameter
	})
	if found {
		return invalid("parameter %q is not supported (names with %q are reserved); leave it out", key, tritonPrefix)
	}
	if _, _, err := Timeout(req); err != nil {
		return err
	}
	if _, err := Priority(req); err != nil {
		return err
	}
	for _, in := range req.Inputs {
		if key, found := least(in.Parameters, inSharedMemory); found {
			return invalid("input %q has the parameter %q, but shared memory is not supported; send the data in raw_input_contents",
				in.Name, key)
		}
	}
	for _, out := range req.Outputs {
		key, found := least(out.Parameters, func(key string) bool { return key == classification || inSharedMemory(key) })
		if found {
			return invalid("output %q has the parameter %q, which is not supported; leave it out", out.Name, key)
		}
	}
	return nil
}

func inSharedMemory(key string) bool { return strings.HasPrefix(key, sharedMemoryPrefix) }

// least finds the first key in alphabetical order that matches, so that the
// same request always gets the same error.
func least(parameters map[string]*inferencepb.InferParameter, match func(string) bool) (key string, found bool) {
	for k := range parameters {
		if match(k) && (!found || k < key) {
			key, found = k, true
		}
	}
	return key, found
}

// text is a parameter's value.
func text(p *inferencepb.InferParameter) string {
	switch choice := p.GetParameterChoice().(type) {
	case *inferencepb.InferParameter_BoolParam:
		return strconv.FormatBool(choice.BoolParam)
	case *inferencepb.InferParameter_Int64Param:
		return strconv.FormatInt(choice.Int64Param, 10)
	case *inferencepb.InferParameter_Uint64Param:
		return strconv.FormatUint(choice.Uint64Param, 10)
	case *inferencepb.InferParameter_DoubleParam:
		return strconv.FormatFloat(choice.DoubleParam, 'g', -1, 64)
	case *inferencepb.InferParameter_StringParam:
		return choice.StringParam
	default:
		return ""
	}
}

// describe is a parameter's value and kind, as a person reads them.
func describe(p *inferencepb.InferParameter) string {
	switch p.GetParameterChoice().(type) {
	case nil:
		return "empty"
	case *inferencepb.InferParameter_StringParam:
		return fmt.Sprintf("the string %q", p.GetStringParam())
	case *inferencepb.InferParameter_BoolParam:
		return "the bool " + text(p)
	case *inferencepb.InferParameter_DoubleParam:
		return "the double " + text(p)
	case *inferencepb.InferParameter_Uint64Param:
		return "the uint64 " + text(p)
	default:
		return text(p)
	}
}
