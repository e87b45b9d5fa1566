package configs

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
)

// ReadGossipKey reads a file that holds the gossip encryption key in standard base64: 16, 24 or 32 bytes, which select
// AES-128, AES-192 or AES-256. Errors never contain the key.
func ReadGossipKey(path string) ([]byte, error) {
	const remedy = "make one with: head -c 32 /dev/urandom | base64"
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the gossip key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, fmt.Errorf("gossip key in %s is not base64; %s", path, remedy)
	}
	switch len(key) {
	case 16, 24, 32:
		return key, nil
	}
	return nil, fmt.Errorf("gossip key in %s has %d bytes, not 16, 24 or 32; %s", path, len(key), remedy)
}
