package configs

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
)

const leastScenario = "models: [{name: m, profile: p}]\nworkers: [{name: w}]\nworkloads: [{name: l, arrivals: poisson, rate: 1}]\n"

func TestSampleScenarioIsValidAndListsEveryKey(t *testing.T) {
	data, err := os.ReadFile("scenario.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := LoadScenario("scenario.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var missing []string
	for _, entry := range []any{s, &s.Models[0], &s.Workers[0], &s.Workloads[0], &s.Failures[0], &s.Slowdowns[0], &s.LeaderChanges[0]} {
		for _, k := range keysIn(reflect.ValueOf(entry).Elem(), "", false) {
			if !strings.Contains(string(data), lastPart(k.path)+":") {
				missing = append(missing, k.path)
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("scenario.yaml lacks %v", missing)
	}
}

func TestDefaultsOfAScenario(t *testing.T) {
	s, err := ParseScenario("s", []byte(leastScenario))
	if err != nil {
		t.Fatal(err)
	}
	if m := s.Models[0]; m.Copies != 1 || !m.Batched {
		t.Errorf("%+v", m)
	}
	if w := s.Workers[0]; w.Count != 1 || w.Devices != 1 || w.Page != 16*MiB || w.Slowdown != 1 {
		t.Errorf("%+v", w)
	}
	if l := s.Workloads[0]; l.Rows != 1 || l.Speed != 1 || l.SLO != 0 {
		t.Errorf("%+v", l)
	}
}

func TestBadScenarios(t *testing.T) {
	for text, want := range map[string]string{
		"duration: 1s\nwarmup: 2s\n" + leastScenario:                                      "s:2:1: warmup: 2s is not less than 1s",
		"models: []\nworkers: [{}]\nworkloads: [{name: l, arrivals: poisson, rate: 1}]\n": "s:1:1: models: is required",
		strings.Replace(leastScenario, "poisson", "poison", 1):                            `workloads[0].arrivals: "poison" is not known; did you mean poisson?`,
		strings.Replace(leastScenario, ", rate: 1", "", 1):                                "workloads[0].rate: 0 is out of range",
		strings.Replace(leastScenario, "poisson, rate: 1", "closed", 1):                   "workloads[0].in_flight: 0 is too low",
		strings.Replace(leastScenario, "poisson, rate: 1", "trace", 1):                    "workloads[0].file: is required",
		"network: {delay: 1ms, jitter: 2ms}\n" + leastScenario:                            "network.jitter: 2ms is out of range",
		leastScenario + "failure: []\n":                                                   "failure: is not a known key; did you mean failures?",
		leastScenario + "slowdowns: [{worker: w, at: 1s}]\n":                              "slowdowns[0].factor: 0 is out of range",
		leastScenario + "failures: [{at: soon}]\n":                                        `failures[0].at: "soon" is not a duration`,
		strings.Replace(leastScenario, "profile: p", "copies: 0", 1):                      "models[0].copies: 0 is too low",
		strings.Replace(leastScenario, "profile: p", "pinned: -1", 1):                     "models[0].pinned: -1 is out of range",
	} {
		_, err := ParseScenario("s", []byte(text))
		if _, ok := errors.AsType[Problems](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}
