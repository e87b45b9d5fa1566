package histories

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/orrery-project/orrery/proto/logpb"
)

// laterSetting is the number of a field that Settings do not have. The checker wants
// values that no two operations set, and the settings that there are have few values;
// what a later release would set is kept and shown by this one, whatever it is.
const laterSetting protowire.Number = 10_000

// settingsWith are settings that differ from all with another value.
func settingsWith(value string) *logpb.Settings {
	s := &logpb.Settings{}
	s.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, laterSetting, protowire.BytesType), value))
	return s
}

// valueOf is the value of such settings, empty if nobody has set one.
func valueOf(s *logpb.Settings) string {
	for left := []byte(s.ProtoReflect().GetUnknown()); len(left) > 0; {
		number, kind, tag := protowire.ConsumeTag(left)
		if tag < 0 {
			return "not readable"
		}
		if number == laterSetting && kind == protowire.BytesType {
			value, _ := protowire.ConsumeString(left[tag:])
			return value
		}
		field := protowire.ConsumeFieldValue(number, kind, left[tag:])
		if field < 0 {
			return "not readable"
		}
		left = left[tag+field:]
	}
	return ""
}

func TestSettingsCarryAValue(t *testing.T) {
	for _, want := range []string{"", "v1-1"} {
		if got := valueOf(settingsWith(want)); got != want {
			t.Errorf("%q comes back as %q", want, got)
		}
	}
	if got := valueOf(nil); got != "" {
		t.Errorf("no settings have the value %q", got)
	}
}
