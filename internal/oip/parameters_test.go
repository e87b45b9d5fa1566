package oip

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMalformedParameters(t *testing.T) {
	of := func(key string, p *parameter) *request {
		return with(images(1), func(r *request) { r.Parameters = map[string]*parameter{key: p} })
	}
	ofInput := func(key string) *request {
		return with(images(1), func(r *request) { r.Inputs[0].Parameters = map[string]*parameter{key: int64Param(1)} })
	}
	ofOutput := func(key string) *request {
		return with(images(1), func(r *request) {
			r.Outputs = []*requested{{Name: "logits", Parameters: map[string]*parameter{key: int64Param(1)}}}
		})
	}
	tests := []struct {
		name string
		req  *request
		want string
	}{
		{
			"unknown triton key", of("triton_magic", boolParam(true)),
			`parameter "triton_magic" is not supported (names with "triton_" are reserved); leave it out`,
		},
		{
			"the first of two",
			with(of("triton_b", nil), func(r *request) { r.Parameters["triton_a"] = nil }),
			`parameter "triton_a" is not supported (names with "triton_" are reserved); leave it out`,
		},
		{
			"timeout as a string", of("timeout", stringParam("5ms")),
			`parameter "timeout" is the string "5ms"; give the microseconds until the answer is due, as an int64`,
		},
		{
			"timeout as a uint64", of("timeout", uint64Param(5)),
			`parameter "timeout" is the uint64 5; give the microseconds until the answer is due, as an int64`,
		},
		{
			"timeout as a double", of("timeout", doubleParam(0.5)),
			`parameter "timeout" is the double 0.5; give the microseconds until the answer is due, as an int64`,
		},
		{
			"timeout without a value", of("timeout", &parameter{}),
			`parameter "timeout" is empty; give the microseconds until the answer is due, as an int64`,
		},
		{
			"negative timeout", of("timeout", int64Param(-5)),
			`parameter "timeout" is -5; give the microseconds until the answer is due, or 0 for no timeout`,
		},
		{
			"negative priority", of("priority", int64Param(-1)),
			`parameter "priority" is -1; give an int64 or a uint64, 1 for the highest, 0 for the default`,
		},
		{
			"priority as a bool", of("priority", boolParam(true)),
			`parameter "priority" is the bool true; give an int64 or a uint64, 1 for the highest, 0 for the default`,
		},
		{
			"shared memory of an input", ofInput("shared_memory_region"),
			`input "image" has the parameter "shared_memory_region", but shared memory is not supported; send the data in raw_input_contents`,
		},
		{
			"shared memory of an output", ofOutput("shared_memory_offset"),
			`output "logits" has the parameter "shared_memory_offset", which is not supported; leave it out`,
		},
		{
			"classification", ofOutput("classification"),
			`output "logits" has the parameter "classification", which is not supported; leave it out`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantInvalid(t, Malformed(tt.req), tt.want) })
	}
}

func TestTimeout(t *testing.T) {
	tests := []struct {
		microseconds int64
		want         time.Duration
		ok           bool
	}{
		{1, time.Microsecond, true},
		{2_500_000, 2500 * time.Millisecond, true},
		{0, 0, false},
		{math.MaxInt64, math.MaxInt64 / 1000 * 1000, true},
	}
	for _, tt := range tests {
		req := &request{Parameters: map[string]*parameter{"timeout": int64Param(tt.microseconds)}}
		if d, ok, err := Timeout(req); d != tt.want || ok != tt.ok || err != nil {
			t.Errorf("timeout %d: got %v, %v, %v, want %v, %v", tt.microseconds, d, ok, err, tt.want, tt.ok)
		}
	}
	if d, ok, err := Timeout(&request{}); d != 0 || ok || err != nil {
		t.Errorf("no timeout: got %v, %v, %v", d, ok, err)
	}
}

func TestPriority(t *testing.T) {
	for want, p := range map[uint64]*parameter{
		0: int64Param(0), 1: int64Param(1), 2: uint64Param(2), math.MaxUint64: uint64Param(math.MaxUint64),
	} {
		req := &request{Parameters: map[string]*parameter{"priority": p}}
		if got, err := Priority(req); got != want || err != nil {
			t.Errorf("priority %v: got %d and %v", p, got, err)
		}
	}
	if got, err := Priority(&request{}); got != 0 || err != nil {
		t.Errorf("no priority: got %d and %v", got, err)
	}
}

func TestCustomParameters(t *testing.T) {
	req := &request{Parameters: map[string]*parameter{
		"tenant": stringParam("blue"), "debug": boolParam(true), "limit": int64Param(-3),
		"big": uint64Param(math.MaxUint64), "temperature": doubleParam(0.7), "empty": {},
		"timeout": int64Param(1), "priority": uint64Param(1), "headers": stringParam("h"),
		"binary_data_output": boolParam(true), "sequence_id": int64Param(1), "sequence_start": boolParam(true),
		"triton_enable_empty_final_response": boolParam(false),
	}}
	want := map[string]string{
		"tenant": "blue", "debug": "true", "limit": "-3",
		"big": "18446744073709551615", "temperature": "0.7", "empty": "",
	}
	if diff := cmp.Diff(want, CustomParameters(req)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := CustomParameters(&request{}); got != nil {
		t.Errorf("no parameters: got %v", got)
	}
}
