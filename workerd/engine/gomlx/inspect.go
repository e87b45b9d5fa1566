package gomlx

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/orrery-project/orrery/internal/tensor"
)

// modelMessage is the name under which onnx-gomlx registers onnx.ModelProto.
const modelMessage = "protos.ModelProto"

// maxNodes bounds the depth to which GoMLX recurses into a graph.
const maxNodes = 100_000

// description is what a look at the file tells.
type description struct {
	signature    tensor.Signature
	weightsBytes int64
	// content is the file, in the form that onnx-gomlx takes.
	content []byte
}

// variable says whether a dimension other than the batch is variable.
func (d description) variable() bool {
	for _, input := range d.signature.Inputs {
		for axis, n := range input.Shape {
			if n < 0 && !(axis == 0 && d.signature.Batched) {
				return true
			}
		}
	}
	return false
}

// inspect reads the signature of an ONNX file, and refuses what would crash
// GoMLX beyond recovery.
func inspect(content []byte) (description, error) {
	model, err := unmarshal(content)
	if err != nil {
		return description{}, err
	}
	graph := message(model, "graph")
	if !graph.IsValid() {
		return description{}, errors.New("this is not an ONNX model: it has no graph; export or copy it again")
	}
	if list(model, "functions").Len() > 0 {
		return description{}, errors.New("the model has functions of its own, which GoMLX can't run; export it with functions inlined")
	}
	i := &inspector{}
	if err := i.graph(graph, &scope{names: make(map[string]bool)}); err != nil {
		return description{}, err
	}
	found := description{content: content, weightsBytes: i.weightsBytes}
	if dropDefaults(graph) {
		if found.content, err = proto.Marshal(model.Interface()); err != nil {
			return description{}, fmt.Errorf("rewrite the model without the initializers among its inputs: %w", err)
		}
	}
	found.signature, err = signature(graph)
	return found, err
}

// unmarshal parses onnx.ModelProto with the library's own definition, which it
// does not export, so that both see the same.
func unmarshal(content []byte) (protoreflect.Message, error) {
	messageType, err := protoregistry.GlobalTypes.FindMessageByName(modelMessage)
	if err != nil {
		return nil, fmt.Errorf("onnx-gomlx no longer has the message %s: %w", modelMessage, err)
	}
	model := messageType.New()
	if err := proto.Unmarshal(content, model.Interface()); err != nil {
		return nil, fmt.Errorf("this is not an ONNX model, or it is damaged; export or copy it again: %w", err)
	}
	return model, nil
}

// signature reads the inputs and outputs. The first dimension is the batch if
// it is variable everywhere.
func signature(graph protoreflect.Message) (tensor.Signature, error) {
	var s tensor.Signature
	var err error
	if s.Inputs, err = specs(list(graph, "input")); err != nil {
		return s, fmt.Errorf("input %w", err)
	}
	if s.Outputs, err = specs(list(graph, "output")); err != nil {
		return s, fmt.Errorf("output %w", err)
	}
	if len(s.Inputs) == 0 || len(s.Outputs) == 0 {
		return s, fmt.Errorf("the model has %d inputs and %d outputs; it needs at least one of each", len(s.Inputs), len(s.Outputs))
	}
	s.Batched = true
	for _, specs := range [][]tensor.Spec{s.Inputs, s.Outputs} {
		for _, spec := range specs {
			s.Batched = s.Batched && len(spec.Shape) > 0 && spec.Shape[0] == -1
		}
	}
	return s, nil
}

// specs reads a list of onnx.ValueInfoProto.
func specs(values protoreflect.List) ([]tensor.Spec, error) {
	var specs []tensor.Spec
	for i := range values.Len() {
		value := values.Get(i).Message()
		name := text(value, "name")
		described := message(message(value, "type"), "tensor_type")
		if !described.IsValid() {
			return nil, fmt.Errorf("%q is not a tensor; export the model with tensors only", name)
		}
		number := int32(field(described, "elem_type").Int())
		elements, ok := typeOf(number)
		if !ok {
			return nil, fmt.Errorf("%q has elements of %s, which is not supported; convert them within the model", name, onnxTypeName(described, number))
		}
		shape := message(described, "shape")
		if !shape.IsValid() {
			return nil, fmt.Errorf("%q has no shape; export the model with shapes", name)
		}
		spec := tensor.Spec{Name: name, Type: elements, Shape: []int64{}}
		dims := list(shape, "dim")
		for axis := range dims.Len() {
			size := field(dims.Get(axis).Message(), "dim_value").Int()
			if size <= 0 {
				size = -1 // a name, nothing, or an exporter's way to say so
			}
			spec.Shape = append(spec.Shape, size)
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

// dropDefaults takes the initializers off the list of inputs, where old files
// have them and onnx-gomlx would ask for their values. It says whether there
// were any.
func dropDefaults(graph protoreflect.Message) bool {
	defaults := make(map[string]bool)
	initializers := list(graph, "initializer")
	for i := range initializers.Len() {
		defaults[text(initializers.Get(i).Message(), "name")] = true
	}
	inputs := graph.Mutable(graph.Descriptor().Fields().ByName("input")).List()
	kept := 0
	for i := range inputs.Len() {
		if input := inputs.Get(i); !defaults[text(input.Message(), "name")] {
			inputs.Set(kept, input)
			kept++
		}
	}
	if kept == inputs.Len() {
		return false
	}
	inputs.Truncate(kept)
	return true
}

// scope is the names that a node may read.
type scope struct {
	names map[string]bool
	outer *scope
}

func (s *scope) has(name string) bool {
	for ; s != nil; s = s.outer {
		if s.names[name] {
			return true
		}
	}
	return false
}

// inspector walks through a graph and those inside its nodes.
type inspector struct {
	nodes        int
	weightsBytes int64
}

// graph checks that every node reads only what was defined before it, as ONNX
// demands. GoMLX would follow a cycle until its stack overflows.
func (i *inspector) graph(graph protoreflect.Message, defined *scope) error {
	if list(graph, "sparse_initializer").Len() > 0 {
		return errors.New("the model has sparse weights, which GoMLX can't run; export it with dense ones")
	}
	initializers := list(graph, "initializer")
	for n := range initializers.Len() {
		weight := initializers.Get(n).Message()
		bytes, err := tensorBytes(weight)
		if err != nil {
			return err
		}
		i.weightsBytes += bytes
		defined.names[text(weight, "name")] = true
	}
	inputs := list(graph, "input")
	for n := range inputs.Len() {
		defined.names[text(inputs.Get(n).Message(), "name")] = true
	}
	nodes := list(graph, "node")
	for n := range nodes.Len() {
		if err := i.node(nodes.Get(n).Message(), defined); err != nil {
			return err
		}
	}
	return nil
}

func (i *inspector) node(node protoreflect.Message, defined *scope) error {
	if i.nodes++; i.nodes > maxNodes {
		return fmt.Errorf("the model has more than %d nodes; simplify it", maxNodes)
	}
	inputs, outputs := list(node, "input"), list(node, "output")
	for n := range inputs.Len() {
		// An optional input that is not given is empty.
		if name := inputs.Get(n).String(); name != "" && !defined.has(name) {
			return fmt.Errorf("node %q (%s) reads %q, which no node before it writes; export the model again, with its nodes in topological order",
				text(node, "name"), text(node, "op_type"), name)
		}
	}
	attributes := list(node, "attribute")
	for n := range attributes.Len() {
		if err := i.attribute(attributes.Get(n).Message(), defined); err != nil {
			return err
		}
	}
	for n := range outputs.Len() {
		name := outputs.Get(n).String()
		if name != "" && defined.has(name) {
			return fmt.Errorf("node %q (%s) writes %q, which is already defined; export the model again, with unique names",
				text(node, "name"), text(node, "op_type"), name)
		}
		defined.names[name] = true
	}
	return nil
}

func (i *inspector) attribute(attribute protoreflect.Message, defined *scope) error {
	if value := message(attribute, "t"); value.IsValid() {
		if _, err := tensorBytes(value); err != nil {
			return err
		}
	}
	values := list(attribute, "tensors")
	for n := range values.Len() {
		if _, err := tensorBytes(values.Get(n).Message()); err != nil {
			return err
		}
	}
	if inner := message(attribute, "g"); inner.IsValid() {
		if err := i.graph(inner, &scope{names: make(map[string]bool), outer: defined}); err != nil {
			return err
		}
	}
	graphs := list(attribute, "graphs")
	for n := range graphs.Len() {
		if err := i.graph(graphs.Get(n).Message(), &scope{names: make(map[string]bool), outer: defined}); err != nil {
			return err
		}
	}
	return nil
}

// tensorBytes is the size of an onnx.TensorProto. It fails when the file has
// less data than the tensor's shape claims: GoMLX allocates first.
func tensorBytes(value protoreflect.Message) (int64, error) {
	name := text(value, "name")
	number := int32(field(value, "data_type").Int())
	elements, ok := typeOf(number)
	if !ok {
		return 0, fmt.Errorf("tensor %q has elements of %s, which is not supported; convert them", name, onnxTypeName(value, number))
	}
	if list(value, "external_data").Len() > 0 {
		return 0, fmt.Errorf("tensor %q is in a file of its own; export the model as a single file", name)
	}
	dims := list(value, "dims")
	shape := make([]int64, dims.Len())
	for axis := range shape {
		shape[axis] = dims.Get(axis).Int()
	}
	count, err := tensor.Elements(shape)
	if err != nil {
		return 0, fmt.Errorf("tensor %q: %w", name, err)
	}
	bytes := count * int64(elements.Size())
	if raw := len(field(value, "raw_data").Bytes()); raw > 0 {
		if int64(raw) != bytes {
			return 0, fmt.Errorf("tensor %q has %d bytes and its shape %v claims %d; the file is damaged", name, raw, shape, bytes)
		}
		return bytes, nil
	}
	given := 0
	for _, data := range []protoreflect.Name{"float_data", "int32_data", "int64_data", "double_data", "uint64_data"} {
		given = max(given, list(value, data).Len())
	}
	if int64(given) != count {
		return 0, fmt.Errorf("tensor %q has %d elements and its shape %v claims %d; the file is damaged", name, given, shape, count)
	}
	return bytes, nil
}

// onnxTypeName is the name of a data type, found by way of any ONNX message.
func onnxTypeName(from protoreflect.Message, number int32) string {
	types := from.Descriptor().ParentFile().Messages().ByName("TensorProto").Enums().ByName("DataType").Values()
	if named := types.ByNumber(protoreflect.EnumNumber(number)); named != nil {
		return string(named.Name())
	}
	return fmt.Sprintf("the unknown type %d", number)
}

func field(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(name))
}

func text(m protoreflect.Message, name protoreflect.Name) string { return field(m, name).String() }

func list(m protoreflect.Message, name protoreflect.Name) protoreflect.List {
	return field(m, name).List()
}

// message reads a field; the result is not valid when the field is missing.
func message(m protoreflect.Message, name protoreflect.Name) protoreflect.Message {
	return field(m, name).Message()
}
