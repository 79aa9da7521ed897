import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Files go by their size, and these load others: the few lines that take longest begin first. */
class Sequencer extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const loads = ({ moduleId }: TestSpecification) => Number(/test\/domain\/(aws|shared)/.test(moduleId));
    return sorted.toSorted((a, b) => loads(b) - loads(a));
  }
}

export default defineConfig({
  ssr: { resolve: { conditions: ["source", "node", "import", "default"] } },
  resolve: { conditions: ["source", "node", "import", "default"] },
  test: {
    include: ["packages/*/{src,test}/**/*.test.ts", "test/**/*.test.ts"],
    // Minutes of what the others try in part: npm test -- domain --all
    exclude: process.env.WAGGLE_AWS_ALL === "1" ? [] : ["test/domain/all/**"],
    testTimeout: 20_000,
    hookTimeout: 30_000,
    pool: "forks",
    // As in ts.mjs, for who calls vitest by itself.
    env: { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: "true" },
    sequence: { sequencer: Sequencer },
    maxWorkers: 2,
  },
});
