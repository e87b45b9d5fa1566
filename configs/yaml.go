package configs

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// parseYAML returns the root of the one document in data, or why there is none.
func parseYAML(file string, data []byte) (ast.Node, *Problem) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if p := checkText(file, data); p != nil {
		return nil, p
	}
	// Duplicates are left to the decoder, which tells where both are.
	parsed, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		p := syntaxProblem(file, err)
		return nil, &p
	}
	for i, doc := range parsed.Docs {
		if directive, ok := doc.Body.(*ast.DirectiveNode); ok {
			p := placeOf(file, directive.Start).problem("", faultf("remove the line", "YAML directives are not supported"))
			return nil, &p
		}
		if i > 0 {
			start := doc.Start
			if start == nil {
				start = firstToken(doc.Body)
			}
			p := placeOf(file, start).problem("", faultf("keep one, without the line between them", "the file has a second YAML document"))
			return nil, &p
		}
	}
	if len(parsed.Docs) == 0 || empty(parsed.Docs[0].Body) {
		p := place{source: file}.problem("", faultf("write the required ones, or {} if the environment sets them all",
			"the file has no keys"))
		return nil, &p
	}
	return parsed.Docs[0].Body, nil
}

func placeOf(file string, t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{source: file}
	}
	return place{source: file, line: t.Position.Line, column: t.Position.Column}
}

// firstToken returns where a node begins. The token of a mapping without braces is its first colon.
func firstToken(node ast.Node) *token.Token {
	if mapping, ok := node.(*ast.MappingNode); ok && !mapping.IsFlowStyle && len(mapping.Values) > 0 {
		return mapping.Values[0].Key.GetToken()
	}
	return node.GetToken()
}

func empty(node ast.Node) bool {
	switch node.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return true
	}
	return false
}

// checkText refuses what the parser would take in silence or explain badly.
func checkText(file string, data []byte) *Problem {
	fail := func(line, column int, remedy, format string, args ...any) *Problem {
		p := place{file, line, column}.problem("", faultf(remedy, format, args...))
		return &p
	}
	if len(data) > int(maxFile) {
		return fail(0, 0, "is it the right file?", "the file is larger than %s", maxFile)
	}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if !utf8.Valid(line) {
			return fail(number, 1, "save the file as UTF-8", "the line is not UTF-8 text")
		}
		content := bytes.TrimRight(line, "\r\n")
		if i := bytes.IndexFunc(content, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }); i >= 0 {
			return fail(number, i+1, "remove it", "the line contains the control character %#02x", content[i])
		}
		indent := content[:len(content)-len(bytes.TrimLeft(content, " \t"))]
		if i := bytes.IndexByte(indent, '\t'); i >= 0 && len(indent) < len(content) {
			return fail(number, i+1, "indent with spaces", "the line is indented with a tab")
		}
	}
	return nil
}

// syntaxProblem adds a remedy to an error of the YAML parser.
func syntaxProblem(file string, err error) Problem {
	at, message := place{source: file}, err.Error()
	if syntax, ok := errors.AsType[yaml.Error](err); ok {
		at, message = placeOf(file, syntax.GetToken()), syntax.GetMessage()
	}
	remedy := "check the indentation, the quotes and the brackets here and in the line above"
	for _, known := range []struct{ part, remedy string }{
		{"mapping value is not allowed", `write one "key: value" a line, keys of one section below each other, and quote a value that contains ": "`},
		{"value is not allowed", `indent keys of one section alike, and quote a value that begins with a bracket, as in "[::]:8000"`},
		{"end character of", "close the quote"},
		{"flow mapping end", "close the {"},
		{"map value", "close the { and write a value for each key"},
		{"sequence end", "close the ["},
		{"',' or ']'", "close the [ and put a comma between entries"},
		{"',' or '}'", "close the { and put a comma between entries"},
		{"reserved character", "quote the value"},
		{"anchor name", "write a name after &, or quote the value"},
		{"alias name", "write a name after *, or quote the value"},
	} {
		if strings.Contains(message, known.part) {
			remedy = known.remedy
			break
		}
	}
	return at.problem("", faultf(remedy, "not valid YAML: %s", message))
}
