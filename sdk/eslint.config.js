import js from '@eslint/js';
import globals from 'globals';
import ts from 'typescript-eslint';

export default ts.config(
  { ignores: ['dist/', 'page/', 'protocol/'] },
  js.configs.recommended,
  ...ts.configs.strict,
  { files: ['*.js'], languageOptions: { globals: globals.node } },
  { files: ['src/**/*.ts'], languageOptions: { globals: globals.browser }, rules: { eqeqeq: 'error' } },
);
