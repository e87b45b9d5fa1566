package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// terminalSize is the size of the terminal that w is; not ok when it is none.
func terminalSize(w io.Writer) (width, height int, ok bool) {
	file, isFile := w.(*os.File)
	if !isFile {
		return 0, 0, false
	}
	width, height, err := term.GetSize(int(file.Fd()))
	return width, height, err == nil
}

// canvas draws lines in place of those that it drew before. It is for a terminal
// alone.
type canvas struct {
	w    io.Writer
	size func(io.Writer) (width, height int, ok bool)
	// drawn are the lines that are on the terminal.
	drawn []string
}

// canvas returns nil when w is no terminal, or one that can't move its cursor.
func (a *app) canvas(w io.Writer) *canvas {
	if a.size == nil || a.variable("TERM") == "dumb" {
		return nil
	}
	if _, _, ok := a.size(w); !ok {
		return nil
	}
	return &canvas{w: w, size: a.size}
}

// room is how much can be drawn; some terminals don't know their size.
func (c *canvas) room() (width, height int) {
	width, height, _ = c.size(c.w)
	return cmp.Or(width, 80), cmp.Or(height, 24)
}

// draw leaves out what has no room: the cursor can't go back to a line that has
// scrolled away, and a line that is broken would count as two.
func (c *canvas) draw(lines []string) {
	width, height := c.room()
	lines = lines[:min(len(lines), max(height-1, 1))]
	fitting := make([]string, len(lines))
	for i, line := range lines {
		fitting[i] = cut(line, width)
	}
	text := strings.Join(fitting, "\n")
	if text == strings.Join(c.drawn, "\n") {
		return
	}
	var out strings.Builder
	out.WriteString(c.back())
	for _, line := range fitting {
		out.WriteString(line + "\x1b[K\n") // K: the rest of the line that was there
	}
	out.WriteString("\x1b[J")
	c.drawn = fitting
	_, _ = io.WriteString(c.w, out.String())
}

// clear takes away what was drawn.
func (c *canvas) clear() {
	if len(c.drawn) > 0 {
		_, _ = io.WriteString(c.w, c.back()+"\x1b[J")
		c.drawn = nil
	}
}

// back moves the cursor to the first line that was drawn.
func (c *canvas) back() string {
	if len(c.drawn) == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\r", len(c.drawn))
}

// cut shortens a text to a number of characters.
func cut(text string, width int) string {
	if runes := []rune(text); len(runes) > width {
		return string(runes[:max(width, 0)])
	}
	return text
}
