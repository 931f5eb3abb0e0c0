package kubelet

import (
	"embed"
	"fmt"

	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/config"
)

//go:embed stages/*.yaml
var stageFiles embed.FS

// loadStages reads the embedded stages, grouped by the kind of object they move.
func loadStages() (map[internalversion.StageResourceRef][]*internalversion.Stage, error) {
	entries, err := stageFiles.ReadDir("stages")
	if err != nil {
		return nil, err
	}
	stages := map[internalversion.StageResourceRef][]*internalversion.Stage{}
	for _, entry := range entries {
		content, err := stageFiles.ReadFile("stages/" + entry.Name())
		if err != nil {
			return nil, err
		}
		stage, err := config.UnmarshalWithType[*internalversion.Stage](content)
		if err != nil {
			return nil, fmt.Errorf("stage %s: %w", entry.Name(), err)
		}
		stages[stage.Spec.ResourceRef] = append(stages[stage.Spec.ResourceRef], stage)
	}
	return stages, nil
}
