// Command apidoc is a protoc plugin that writes the reference of the services
// as Markdown, from the comments of the schema: docs/api.md.
package main

import (
	"fmt"
	"path"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func main() {
	protogen.Options{}.Run(func(p *protogen.Plugin) error {
		g := p.NewGeneratedFile("docs/api.md", "")
		g.P("<!-- Generated from wire/proto by \"make generate\"; do not edit. -->")
		g.P("# API reference")
		g.P()
		g.P("Connect: POST a message as JSON or Protobuf to `/SERVICE/METHOD`, or use gRPC.")
		g.P("[fleet.md](fleet.md) tells of pages, masks, request ids and errors.")
		for _, f := range p.Files {
			if f.Generate && len(f.Services) > 0 {
				file(g, f)
			}
		}
		return nil
	})
}

// file writes the services of a file, then its messages.
func file(g *protogen.GeneratedFile, f *protogen.File) {
	g.P()
	g.P("## ", f.Desc.Package(), ", ", path.Base(f.Desc.Path()))
	for _, s := range f.Services {
		g.P()
		g.P("### ", s.Desc.FullName())
		paragraph(g, s.Comments)
		g.P()
		g.P("| method | takes | returns | |")
		g.P("|---|---|---|---|")
		for _, m := range s.Methods {
			returns := link(m.Output.Desc)
			if m.Desc.IsStreamingServer() {
				returns = "stream of " + returns
			}
			g.P("| `", m.Desc.Name(), "` | ", link(m.Input.Desc), " | ", returns, " | ", text(m.Comments), " |")
		}
	}
	for _, m := range f.Messages {
		message(g, m)
	}
}

func message(g *protogen.GeneratedFile, m *protogen.Message) {
	if m.Desc.IsMapEntry() {
		return
	}
	g.P()
	g.P("#### ", m.Desc.Name())
	paragraph(g, m.Comments)
	if len(m.Fields) > 0 {
		g.P()
		g.P("| field | type | |")
		g.P("|---|---|---|")
	}
	for _, f := range m.Fields {
		g.P("| `", f.Desc.Name(), "` | ", typeOf(f.Desc), " | ", text(f.Comments), " |")
	}
}

func paragraph(g *protogen.GeneratedFile, c protogen.CommentSet) {
	if t := text(c); t != "" {
		g.P()
		g.P(t)
	}
}

// text returns the comments at a place, on one line.
func text(c protogen.CommentSet) string {
	t := strings.Join(strings.Fields(string(c.Leading)+" "+string(c.Trailing)), " ")
	return strings.ReplaceAll(t, "|", "\\|")
}

func typeOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return fmt.Sprintf("map of %s to %s", single(f.MapKey()), single(f.MapValue()))
	case f.IsList():
		return "list of " + single(f)
	}
	return single(f)
}

func single(f protoreflect.FieldDescriptor) string {
	if m := f.Message(); m != nil {
		return link(m)
	}
	return f.Kind().String()
}

// link names a message, and links it where it is one of ours.
func link(m protoreflect.MessageDescriptor) string {
	if !strings.HasPrefix(string(m.FullName()), "gnomon.") {
		return "`" + string(m.FullName()) + "`"
	}
	return fmt.Sprintf("[%s](#%s)", m.Name(), strings.ToLower(string(m.Name())))
}
