package configs

import (
	"reflect"
	"strings"
)

// key is one key of a document, found by reflection over its yaml tags.
type key struct {
	path    string // for example raft.leader_lease
	value   reflect.Value
	live    bool // may change while running: the field, or a section around it, has the tag reload:"live"
	section bool // holds keys of its own
}

// keysOf lists the keys of a document, each section before the keys in it. Entries of lists have no keys.
func keysOf(document any) []key {
	return keysIn(reflect.ValueOf(document).Elem(), "", false)
}

func keysIn(section reflect.Value, prefix string, live bool) []key {
	var keys []key
	for i := range section.NumField() {
		field := section.Type().Field(i)
		found := key{
			path:    prefix + field.Tag.Get("yaml"),
			value:   section.Field(i),
			live:    live || field.Tag.Get("reload") == "live",
			section: field.Type.Kind() == reflect.Struct,
		}
		keys = append(keys, found)
		if found.section {
			keys = append(keys, keysIn(found.value, found.path+".", found.live)...)
		}
	}
	return keys
}

// fieldNamed returns the field of a section that has the key.
func fieldNamed(section reflect.Value, name string) (reflect.Value, bool) {
	for i := range section.NumField() {
		if section.Type().Field(i).Tag.Get("yaml") == name {
			return section.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func namesIn(section reflect.Type) []string {
	names := make([]string, section.NumField())
	for i := range names {
		names[i] = section.Field(i).Tag.Get("yaml")
	}
	return names
}

// otherKind returns the document that is not this one, to recognise keys that stand in the wrong file.
func otherKind(doc document) document {
	if _, ok := doc.(*Controller); ok {
		return &Worker{}
	}
	return &Controller{}
}

// closest returns the candidate that word was probably meant to be, or "".
func closest(word string, candidates []string) string {
	plain := func(s string) string {
		return strings.NewReplacer("_", "", "-", "", ".", "").Replace(strings.ToLower(s))
	}
	best, bestDistance := "", min(len(plain(word))/3, 3)+1
	for _, candidate := range candidates {
		if distance := editDistance(plain(word), plain(candidate)); distance < bestDistance {
			best, bestDistance = candidate, distance
		}
	}
	return best
}

// editDistance is the number of bytes to insert, delete or replace to turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// lastPart returns the key's own name, without the sections around it.
func lastPart(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// elsewhere lists the keys of that name in other sections.
func elsewhere(keys []key, name string) []string {
	var paths []string
	for _, k := range keys {
		if lastPart(k.path) == name {
			paths = append(paths, k.path)
		}
	}
	return paths
}
