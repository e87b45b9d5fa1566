//go:build linux

package main

const (
	modelName = "bench"
	// modelTable is an emulated model that keeps a worker's core idle.
	modelTable = "model,input_bytes,output_bytes,weights_MB,weights_load_ms,b1_ms,b2_ms,b4_ms,b8_ms,b16_ms\n" +
		modelName + ",64,16,1,1,1,1.2,1.5,2,3\n"
)
