%% SPDX-License-Identifier: Apache-2.0
%% @doc Examples of the documentation: found in the edoc of a module, and run as a shell would.
-module(tokamak_examples).

-export([public_modules/0, documented/1, run/1, calls/1, application_is_stopped/0]).

-include_lib("xmerl/include/xmerl.hrl").

%% @doc The modules that users call: those whose edoc is not private. `[{Module, Documentation}]'.
public_modules() ->
    Directory = code:lib_dir(tokamak),
    Options = [{preprocess, true}, {includes, [filename:join(Directory, "include")]}],
    Sources = filelib:wildcard(filename:join([Directory, "src", "*.erl"])),
    Documented = [edoc:get_doc(Source, Options) || Source <- Sources],
    [Public || {_Module, #xmlElement{attributes = Attributes}} = Public <- Documented,
               not lists:keymember(private, #xmlAttribute.name, Attributes)].

%% @doc What a module's documentation holds: `[{Name, Arity, Equivalent, Examples}]' for its functions, with the
%% examples of the module itself under `{module, none, none, Examples}'.
documented(Documentation) ->
    OfModule = [preformatted(Description) || Description <- xmerl_xpath:string("/module/description", Documentation)],
    [{module, none, none, lists:append(OfModule)} | [
        {list_to_atom(value(name, Attributes)), list_to_integer(value(arity, Attributes)), equivalent(Function),
            preformatted(Function)}
     || #xmlElement{attributes = Attributes} = Function <- xmerl_xpath:string("//function", Documentation),
        value(exported, Attributes) =:= "yes"
    ]].

preformatted(Element) ->
    [text(Block) || Block <- xmerl_xpath:string(".//pre", Element)].

%% The arity of the function that says it all.
equivalent(Function) ->
    case xmerl_xpath:string("equiv/expr", Function) of
        [Expression] ->
            [{call, _, _, Arguments}] = parsed(text(Expression) ++ "."),
            length(Arguments);
        [] ->
            none
    end.

text(Element) ->
    lists:append([Value || #xmlText{value = Value} <- xmerl_xpath:string(".//text()", Element)]).

value(Name, Attributes) ->
    #xmlAttribute{value = Value} = lists:keyfind(Name, #xmlAttribute.name, Attributes),
    Value.

%% @doc Runs expressions one by one, with the variables of those before, in a process of its own.
run(Code) ->
    tokamak_test:in_process(fun() ->
        lists:foldl(fun evaluate/2, erl_eval:new_bindings(), expressions(tokens(Code)))
    end).

evaluate(Tokens, Bindings) ->
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, _, NewBindings} = erl_eval:exprs(Expressions, Bindings),
    NewBindings.

%% @doc The functions that expressions call: `[{Module, Name, Arity}]'.
calls(Code) ->
    Trees = lists:append([parsed_tokens(Tokens) || Tokens <- expressions(tokens(Code))]),
    lists:usort(lists:append([erl_syntax_lib:fold(fun call/2, [], Tree) || Tree <- Trees])).

call(Tree, Calls) ->
    case erl_syntax:type(Tree) =:= application andalso erl_syntax_lib:analyze_application(Tree) of
        {Module, {Name, Arity}} -> [{Module, Name, Arity} | Calls];
        _ -> Calls
    end.

parsed(Code) ->
    parsed_tokens(tokens(Code)).

parsed_tokens(Tokens) ->
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    Expressions.

tokens(Code) ->
    {ok, Tokens, _} = erl_scan:string(Code),
    Tokens.

expressions([]) ->
    [];
expressions(Tokens) ->
    {Expression, [Dot | Rest]} = lists:splitwith(fun(Token) -> element(1, Token) =/= dot end, Tokens),
    [Expression ++ [Dot] | expressions(Rest)].

%% @doc An example begins as its reader would: with the application stopped and unconfigured.
application_is_stopped() ->
    _ = application:stop(tokamak),
    _ = application:unload(tokamak),
    ok.
