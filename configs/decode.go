package configs

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder lays a YAML document over a struct. It walks the syntax tree itself, rather than have the YAML library fill
// the struct, because it goes on after a problem and keeps the place of every key for validation.
type decoder struct {
	doc      document
	file     string
	where    places
	anchors  map[string]ast.Node
	problems Problems
}

func (d *decoder) decode(data []byte, into reflect.Value) {
	root, problem := parseYAML(d.file, data)
	if problem != nil {
		d.problems = append(d.problems, *problem)
		return
	}
	d.anchors = map[string]ast.Node{}
	d.value("", d.at(firstToken(root)), root, into)
}

func (d *decoder) at(t *token.Token) place { return placeOf(d.file, t) }

func (d *decoder) report(path string, at place, remedy, format string, args ...any) {
	d.problems = append(d.problems, at.problem(path, faultf(remedy, format, args...)))
}

// value decodes a node into v; at is the place of its key, or of the entry in a list.
func (d *decoder) value(path string, at place, node ast.Node, v reflect.Value) {
	if path != "" {
		d.where[path] = at
	}
	node, ok := d.resolve(path, at, node)
	if !ok {
		return
	}
	_, null := node.(*ast.NullNode)
	switch {
	case v.Kind() == reflect.Struct && null:
		// A section whose keys are all commented out: the defaults stay.
	case v.Kind() == reflect.Struct:
		d.section(path, at, node, v)
	case v.Kind() == reflect.Slice && !null:
		d.list(path, at, node, v)
	case v.Kind() == reflect.Map:
		d.words(path, at, node, v)
	case null && v.Kind() == reflect.Slice:
		d.report(path, at, "write [] for an empty list, or remove the line", "has no value")
	case null:
		d.report(path, at, "write one, or remove the line", "has no value")
	default:
		text, ok := scalar(node)
		if !ok {
			d.report(path, at, "write "+exampleOf(v.Type()), "is %s where a single value belongs", shapeOf(node))
			return
		}
		if f := setScalar(v, text); f != (fault{}) {
			d.problems = append(d.problems, at.problem(path, f))
		}
	}
}

func (d *decoder) section(path string, at place, node ast.Node, v reflect.Value) {
	entries, ok := d.entries(path, at, node, namesIn(v.Type()))
	if !ok {
		return
	}
	for _, entry := range entries {
		name := entry.Key.GetToken().Value
		full := strings.TrimPrefix(path+"."+name, ".")
		keyAt := d.at(entry.Key.GetToken())
		field, known := fieldNamed(v, name)
		if !known {
			d.problems = append(d.problems, keyAt.problem(full, d.unknownKey(path, full, v.Type())))
			continue
		}
		d.value(full, keyAt, entry.Value, field)
	}
}

// unknownKey says what a key was probably meant to be: one of this section, of another one, or of the other kind of
// document.
func (d *decoder) unknownKey(path, full string, section reflect.Type) fault {
	name, names := lastPart(full), namesIn(section)
	remedy := "known keys here are " + strings.Join(names, ", ")
	isFull := func(k key) bool { return k.path == full }
	if near := closest(name, names); near != "" {
		remedy = "did you mean " + near + "?"
	} else if slices.ContainsFunc(keysOf(otherKind(d.doc)), isFull) {
		remedy = fmt.Sprintf("it belongs in the configuration of a %s; this is a %s's", otherKind(d.doc).kind(), d.doc.kind())
	} else if others := elsewhere(keysOf(d.doc), name); len(others) > 0 && !strings.Contains(path, "[") {
		remedy = "did you mean " + strings.Join(others, " or ") + "?"
	}
	return faultf(remedy, "is not a known key")
}

// entries returns the keys of a mapping, less those that were already given.
func (d *decoder) entries(path string, at place, node ast.Node, example []string) ([]*ast.MappingValueNode, bool) {
	var all []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		all = n.Values
	case *ast.MappingValueNode:
		all = []*ast.MappingValueNode{n}
	default:
		remedy, subject := "write key: value lines below it", ""
		if path == "" {
			remedy, subject = "write key: value lines, with a space after each colon", "the file "
		}
		if len(example) > 0 {
			remedy += "; keys are " + strings.Join(example, ", ")
		}
		d.report(path, at, remedy, "%sis %s where keys belong", subject, shapeOf(node))
		return nil, false
	}
	first := map[string]place{}
	var kept []*ast.MappingValueNode
	for _, entry := range all {
		name, keyAt := entry.Key.GetToken().Value, d.at(entry.Key.GetToken())
		full := strings.TrimPrefix(path+"."+name, ".")
		if before, given := first[name]; given {
			d.report(full, keyAt, "keep one of the two", "is given twice, first in line %d", before.line)
			continue
		}
		first[name] = keyAt
		if _, merge := entry.Key.(*ast.MergeKeyNode); merge {
			d.report(full, keyAt, "write the keys out, or use the whole value as *name", "merging is not supported")
			continue
		}
		kept = append(kept, entry)
	}
	return kept, true
}

func (d *decoder) list(path string, at place, node ast.Node, v reflect.Value) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		remedy := "write one entry a line, each after a dash"
		if text, ok := scalar(node); ok {
			remedy = "write [" + text + "]"
		}
		d.report(path, at, remedy, "is %s where a list belongs", shapeOf(node))
		return
	}
	v.SetZero()
	for i, entry := range sequence.Values {
		element := reflect.New(v.Type().Elem())
		if e, ok := element.Interface().(interface{ setDefaults() }); ok {
			e.setDefaults()
		}
		d.value(fmt.Sprintf("%s[%d]", path, i), d.at(firstToken(entry)), entry, element.Elem())
		v.Set(reflect.Append(v, element.Elem()))
	}
}

// words decodes a mapping whose keys are free.
func (d *decoder) words(path string, at place, node ast.Node, v reflect.Value) {
	v.SetZero()
	if _, null := node.(*ast.NullNode); null {
		return
	}
	entries, ok := d.entries(path, at, node, nil)
	if !ok || len(entries) == 0 {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, entry := range entries {
		name, element := entry.Key.GetToken().Value, reflect.New(v.Type().Elem()).Elem()
		d.value(path+"."+name, d.at(entry.Key.GetToken()), entry.Value, element)
		v.SetMapIndex(reflect.ValueOf(name), element)
	}
}

// resolve follows anchors and aliases to the node that holds the value.
func (d *decoder) resolve(path string, at place, node ast.Node) (ast.Node, bool) {
	switch n := node.(type) {
	case *ast.AnchorNode:
		target, ok := d.resolve(path, at, n.Value)
		if ok {
			d.anchors[n.Name.GetToken().Value] = target
		}
		return target, ok
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		target, ok := d.anchors[name]
		if !ok {
			d.report(path, at, "define it further up as &"+name+", or quote the value", "*%s refers to an unknown anchor", name)
		}
		return target, ok
	case *ast.TagNode:
		d.report(path, at, "remove it; values have the type of their key", "the tag %s is not supported", n.Start.Value)
		return nil, false
	}
	return node, true
}

func scalar(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.LiteralNode:
		return n.Value.Value, true
	case ast.ScalarNode:
		// The text as written: 007 stays a name, and 1_000 doesn't become a number.
		return n.GetToken().Value, true
	case *ast.MappingNode:
		return colonWord(n)
	}
	return "", false
}

// colonWord returns the word that the YAML library has taken apart at its colon: in {seeds: [c1:7946]} it reads c1:7946
// as a key and its value, although only a colon with a space after it parts the two.
func colonWord(n *ast.MappingNode) (string, bool) {
	if n.IsFlowStyle || len(n.Values) != 1 {
		return "", false
	}
	entry := n.Values[0]
	value, ok := entry.Value.(ast.ScalarNode)
	if !ok || entry.Start == nil || value.GetToken() == nil {
		return "", false
	}
	colon, after := entry.Start.Position, value.GetToken().Position
	if after.Line != colon.Line || after.Column != colon.Column+1 {
		return "", false
	}
	return entry.Key.GetToken().Value + ":" + value.GetToken().Value, true
}

func shapeOf(node ast.Node) string {
	switch node.(type) {
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a set of keys"
	}
	if text, ok := scalar(node); ok {
		return fmt.Sprintf("the single value %q", text)
	}
	return "of an unknown form"
}
