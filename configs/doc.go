// Package configs is the configuration loader: the settings of a controller, of a worker and of a simulation, their defaults, and the
// strict reading of them from a YAML file and from the environment.
//
// A document is laid over its defaults, then the environment over the document. What is written must be known and
// well-formed; what results must hold together. Every problem is reported at once, as [Problems], each with its place,
// the value at fault and the remedy.
//
// The sample files controller.yaml and worker.yaml in this folder list every key with its default; scenario.yaml does for a
// scenario of the simulator, which is read by the same rules.
package configs
