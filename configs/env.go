package configs

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Variables that the command line reads for itself; loading a configuration ignores them.
const (
	EnvControl          = "ORRERY_CONTROL"
	EnvInferenceAddress = "ORRERY_INFERENCE_ADDRESS"
	EnvOutput           = "ORRERY_OUTPUT"
)

const envPrefix = "ORRERY_"

// variableOf returns the environment variable that overrides a key: raft.leader_lease by ORRERY_RAFT_LEADER_LEASE.
func variableOf(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// override sets the keys for which env has a variable and records in where that their values came from it. A list is
// written with commas, a set of words as key=value with commas; both replace what the file has.
func override(doc document, env []string, where places) Problems {
	keys := map[string]key{}
	for _, k := range keysOf(doc) {
		keys[variableOf(k.path)] = k
	}
	var problems Problems
	for _, variable := range env {
		name, text, _ := strings.Cut(variable, "=")
		switch {
		case !strings.HasPrefix(name, envPrefix), name == EnvControl, name == EnvInferenceAddress, name == EnvOutput:
			continue
		}
		at := place{source: name}
		k, known := keys[name]
		if !known || k.section || isDevices(k.value) {
			problems = append(problems, at.problem("", unknownVariable(doc, name)))
			continue
		}
		where.replace(k.path, at)
		if f := setText(k.value, text); f != (fault{}) {
			problems = append(problems, at.problem(k.path, f))
		}
	}
	return problems
}

func isDevices(v reflect.Value) bool { return v.Type() == reflect.TypeFor[[]Device]() }

// setText sets a key of any type but a section.
func setText(v reflect.Value, text string) fault {
	switch v.Kind() {
	case reflect.Slice:
		v.SetZero()
		for part := range fields(text) {
			element := reflect.New(v.Type().Elem()).Elem()
			if f := setScalar(element, part); f != (fault{}) {
				return f
			}
			v.Set(reflect.Append(v, element))
		}
		return fault{}
	case reflect.Map:
		words := map[string]string{}
		for part := range fields(text) {
			name, value, ok := strings.Cut(part, "=")
			if !ok {
				return faultf("write key=value, with commas between several", "%q has no value", part)
			}
			words[name] = value
		}
		v.SetZero()
		if len(words) > 0 {
			v.Set(reflect.ValueOf(words))
		}
		return fault{}
	}
	return setScalar(v, text)
}

// fields yields the parts between commas; an empty text has none.
func fields(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if strings.TrimSpace(text) == "" {
			return
		}
		for part := range strings.SplitSeq(text, ",") {
			if !yield(strings.TrimSpace(part)) {
				return
			}
		}
	}
}

// unknownVariable says what a variable was probably meant to be. Its value is not repeated: it may be anything.
func unknownVariable(doc document, name string) fault {
	var settable []string
	for _, k := range keysOf(doc) {
		if !k.section && !isDevices(k.value) {
			settable = append(settable, variableOf(k.path))
		}
	}
	inSection := slices.DeleteFunc(slices.Clone(settable), func(s string) bool { return !strings.HasPrefix(s, name+"_") })
	isName := func(k key) bool { return variableOf(k.path) == name }
	remedy := "unset it"
	switch near := closest(strings.TrimPrefix(name, envPrefix), trimAll(settable)); {
	case strings.HasPrefix(name, variableOf("devices")) && doc.kind() == "worker":
		remedy = "devices can be set only in the file"
	case len(inSection) > 0:
		remedy = "it is a section; set its keys, as in " + strings.Join(inSection, ", ")
	case slices.ContainsFunc(keysOf(otherKind(doc)), isName):
		remedy = fmt.Sprintf("it sets a %s, this is a %s; unset it", otherKind(doc).kind(), doc.kind())
	case regexp.MustCompile(`_SERVICE_(HOST|PORT)|_PORT(_[0-9]+_(TCP|UDP)|$)`).MatchString(name):
		remedy = "Kubernetes makes it for a Service; set enableServiceLinks: false in the pod"
	case near != "":
		remedy = "did you mean " + envPrefix + near + "?"
	}
	return faultf(remedy, "names no key of a %s", doc.kind())
}

func trimAll(names []string) []string {
	trimmed := make([]string, len(names))
	for i, name := range names {
		trimmed[i] = strings.TrimPrefix(name, envPrefix)
	}
	return trimmed
}
