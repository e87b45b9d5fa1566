package models_test

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/orrery-project/orrery/models"
)

var modelNames = []string{"fashion-cnn", "fashion-mlp"}

func TestImagesAndExpectedAgree(t *testing.T) {
	expected := loadExpected(t)
	var listed []string
	for _, img := range expected.Images {
		listed = append(listed, img.File)
	}
	paths, err := filepath.Glob("images/*")
	if err != nil {
		t.Fatal(err)
	}
	var present []string
	for _, path := range paths {
		present = append(present, filepath.Base(path))
	}
	if !slices.Equal(listed, present) {
		t.Errorf("expected.json lists\n%v\nthe folder images holds\n%v", listed, present)
	}
	if len(listed) != 40 {
		t.Errorf("%d images, want 40", len(listed))
	}
}

func TestEveryImageIsGreyAndNotBlank(t *testing.T) {
	for _, img := range loadExpected(t).Images {
		path := filepath.Join("images", img.File)
		if _, grey := decode(t, path).(*image.Gray); !grey {
			t.Errorf("%s is not an 8-bit grey PNG", path)
		}
		pixels, err := models.LoadImage(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(pixels) != models.Side*models.Side {
			t.Errorf("%s: %d pixels, want %d", path, len(pixels), models.Side*models.Side)
		}
		if low, high := slices.Min(pixels), slices.Max(pixels); low < 0 || high > 255 || high <= 1 {
			t.Errorf("%s: pixels from %v to %v, want raw values within 0 to 255", path, low, high)
		}
	}
}

func TestLabelsAreInRangeAndBalanced(t *testing.T) {
	text, err := os.ReadFile("labels.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(names) != 10 {
		t.Fatalf("labels.txt has %d lines, want 10", len(names))
	}
	count := make([]int, len(names))
	for _, img := range loadExpected(t).Images {
		if img.Label < 0 || img.Label >= len(names) || img.Name != names[img.Label] {
			t.Errorf("%s: label %d called %q, not so in labels.txt", img.File, img.Label, img.Name)
			continue
		}
		count[img.Label]++
	}
	if slices.Min(count) != slices.Max(count) {
		t.Errorf("images of each class: %v, want as many of each", count)
	}
}

func TestEachModelIsMostlyButNotAlwaysRight(t *testing.T) {
	images := loadExpected(t).Images
	wrong := make(map[string]int)
	for _, img := range images {
		if len(img.Predictions) != len(modelNames) {
			t.Errorf("%s: predictions %v, want one for each of %v", img.File, img.Predictions, modelNames)
		}
		for _, name := range modelNames {
			guess, ok := img.Predictions[name]
			if !ok || guess < 0 || guess > 9 {
				t.Errorf("%s: prediction of %s is %d (present: %v), want 0 to 9", img.File, name, guess, ok)
			}
			if guess != img.Label {
				wrong[name]++
			}
		}
	}
	for _, name := range modelNames {
		if wrong[name] == 0 || wrong[name] > len(images)/4 {
			t.Errorf("%s is wrong on %d of %d images, want some but at most a quarter", name, wrong[name], len(images))
		}
	}
}

func TestModelFilesExist(t *testing.T) {
	for _, name := range modelNames {
		info, err := os.Stat(name + ".onnx")
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < 400_000 {
			t.Errorf("%s.onnx has %d bytes, too few to hold its weights", name, info.Size())
		}
	}
}

func TestLoadImageConvertsColourToGreyRowByRow(t *testing.T) {
	picture := image.NewNRGBA(image.Rect(0, 0, models.Side, models.Side))
	for i := range models.Side * models.Side {
		picture.Set(i%models.Side, i/models.Side, color.Black)
	}
	picture.Set(1, 0, color.White)
	picture.Set(0, 1, color.NRGBA{R: 255, A: 255})
	pixels, err := models.LoadImage(writePNG(t, picture))
	if err != nil {
		t.Fatal(err)
	}
	// 76 is the luminance of pure red, 0.299 × 255.
	got := []float32{pixels[0], pixels[1], pixels[models.Side], pixels[models.Side+1]}
	if want := []float32{0, 255, 76, 0}; !slices.Equal(got, want) {
		t.Errorf("top left pixels %v, want %v", got, want)
	}
}

func TestLoadImageNamesTheFileItRefuses(t *testing.T) {
	text := filepath.Join(t.TempDir(), "notes.png")
	if err := os.WriteFile(text, []byte("not a picture"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct{ path, says string }{
		"wrong size": {writePNG(t, image.NewGray(image.Rect(0, 0, 28, 29))), "28×29"},
		"not a PNG":  {text, "PNG"},
		"missing":    {filepath.Join(t.TempDir(), "absent.png"), "no such file"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := models.LoadImage(c.path)
			if err == nil || !strings.Contains(err.Error(), c.path) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that names %s and says %q", err, c.path, c.says)
			}
		})
	}
}

func TestLoadExpectedNamesTheFileItRefuses(t *testing.T) {
	for name, text := range map[string]string{"not JSON": "{", "no images": `{"images": []}`} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "expected.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := models.LoadExpected(dir); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one that names %s", err, path)
			}
		})
	}
	if _, err := models.LoadExpected(t.TempDir()); err == nil {
		t.Error("an empty folder was accepted")
	}
}

func loadExpected(t *testing.T) *models.Expected {
	t.Helper()
	expected, err := models.LoadExpected(".")
	if err != nil {
		t.Fatal(err)
	}
	return expected
}

func decode(t *testing.T, path string) image.Image {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	picture, err := png.Decode(file)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return picture
}

func writePNG(t *testing.T, picture image.Image) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "picture.png"))
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(file, picture); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}
