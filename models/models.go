// Package models reads the test images and recorded predictions that come with the small models of this folder.
package models

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
)

// Side is the width and the height, in pixels, of the images that both models take.
const Side = 28

// Expected is what expected.json says about the test images, in the order of that file.
type Expected struct {
	Images []Image `json:"images"`
}

// Image is one test image and what is known of it.
type Image struct {
	File        string         `json:"file"`        // name within the folder images
	Label       int            `json:"label"`       // the true class: a line of labels.txt, from 0
	Name        string         `json:"name"`        // the true class in words
	Predictions map[string]int `json:"predictions"` // by model name: the class that the model gives, right or wrong
}

// LoadExpected reads expected.json in dir, the folder that also holds the models and images.
// A file that lists no images is an error.
func LoadExpected(dir string) (*Expected, error) {
	path := filepath.Join(dir, "expected.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read expected predictions: %w", err)
	}
	var expected Expected
	if err := json.Unmarshal(text, &expected); err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	if len(expected.Images) == 0 {
		return nil, fmt.Errorf("%s lists no images; write it again with train.py", path)
	}
	return &expected, nil
}

// LoadImage reads a PNG and returns its Side×Side pixels as the models take them: grey values from 0 (black) to 255
// (white), row by row from the top left. Colour is converted to grey and transparency shows black.
// A picture of any other size is an error.
func LoadImage(path string) ([]float32, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	// The header first, so that a huge picture is refused before its pixels are allocated.
	header, err := png.DecodeConfig(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("decode %s as PNG: %w", path, err)
	}
	if header.Width != Side || header.Height != Side {
		return nil, fmt.Errorf("%s is %d×%d pixels; scale it to %d×%d", path, header.Width, header.Height, Side, Side)
	}
	picture, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("decode %s as PNG: %w", path, err)
	}
	return greyPixels(picture), nil
}

func greyPixels(picture image.Image) []float32 {
	bounds := picture.Bounds()
	pixels := make([]float32, 0, bounds.Dx()*bounds.Dy())
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			grey := color.GrayModel.Convert(picture.At(x, y)).(color.Gray)
			pixels = append(pixels, float32(grey.Y))
		}
	}
	return pixels
}
